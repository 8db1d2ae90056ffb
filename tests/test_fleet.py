"""Models on Ray: how many there can be. Starting a Ray is tested where jobs and servers do it."""

from __future__ import annotations

import pytest

from fivefold.errors import InputError
from fivefold.fleet import Fleet


@pytest.mark.parametrize("wrong", [{"least": 0}, {"least": 3, "most": 2}, {"cpus": -1.0}, {"gpus": -0.5}])
def test_what_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="there must be at least one, the least first"):
        Fleet(**wrong)  # type: ignore[arg-type]


def test_no_cores_and_a_part_of_a_gpu_can_work() -> None:
    assert Fleet(2, 4, cpus=0, gpus=0.25).most == 4
