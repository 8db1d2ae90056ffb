from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fivefold.jobs.ids import Ids


@given(st.lists(st.text(max_size=3), max_size=60), st.integers(1, 70))
def test_exactly_the_repeated_rows_are_found(names: list[str], at_once: int) -> None:
    ids = Ids()
    for name in (name.encode("utf-8", "replace").decode() for name in names):
        ids.add(name)
    same = [name.encode("utf-8", "replace") for name in names]
    assert ids.repeated(at_once) == {i for i, name in enumerate(same) if same.count(name) > 1}
    ids.close()
