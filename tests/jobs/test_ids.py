from __future__ import annotations

import io
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import JobError
from fivefold.jobs.ids import Ids


@given(st.lists(st.text(max_size=3), max_size=60), st.integers(1, 70))
def test_exactly_the_repeated_rows_are_found(names: list[str], at_once: int) -> None:
    ids = Ids()
    for name in (name.encode("utf-8", "replace").decode() for name in names):
        ids.add(name)
    same = [name.encode("utf-8", "replace") for name in names]
    assert ids.repeated(at_once) == {i for i, name in enumerate(same) if same.count(name) > 1}
    ids.close()


class FullDisk(io.RawIOBase):
    """Where nothing can be written."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_no_room_for_the_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: io.BufferedWriter(FullDisk()))
    few, many = Ids(), Ids()
    few.add("a")
    with pytest.raises(JobError, match="No space left on device; make room, or name another folder in TMPDIR"):
        few.repeated()
    with pytest.raises(JobError, match="No space left on device"):
        for number in range(2 * io.DEFAULT_BUFFER_SIZE // 8):
            many.add(str(number))
    few.close()
    many.close()
