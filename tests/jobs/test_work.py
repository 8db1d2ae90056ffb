"""jobs/work.py: items that fail are told apart; vectors stay with their rows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import InputError
from fivefold.jobs.work import sifted

ITEMS = st.lists(st.integers(0, 1000), unique=True, max_size=60)


def doubled(bad: set[int], error: type[Exception] = InputError):  # type: ignore[no-untyped-def]
    """Work that fails as a whole where one of its items is bad."""

    def work(items: list[int]) -> list[int]:
        calls.append(len(items))
        if found := bad.intersection(items):
            raise error(f"bad: {sorted(found)}")
        return [2 * item for item in items]

    calls: list[int] = []
    return work, calls


@given(ITEMS, st.data())
def test_every_item_is_done_or_fails_alone_in_order(items: list[int], data: st.DataObject) -> None:
    bad = set(data.draw(st.lists(st.sampled_from(items), unique=True))) if items else set()
    work, _ = doubled(bad)
    results, failed = sifted(items, work)
    assert results == [2 * item for item in items if item not in bad]
    assert [item for item, _ in failed] == [item for item in items if item in bad]
    assert all(str(error) == f"bad: [{item}]" for item, error in failed)  # the error it raises alone


def test_one_bad_item_costs_few_calls() -> None:
    """Two for each halving, of halves that get smaller."""
    work, calls = doubled({700})
    sifted(list(range(1024)), work)
    assert len(calls) == 1 + 2 * 10 and sum(calls) < 1024 + 2 * 1024
    assert all(later <= earlier for earlier, later in pairwise(sorted(calls, reverse=True)))


def test_what_is_no_error_of_ours_and_hits_every_item_is_raised() -> None:
    """A model that is broken is not the rows' fault, a row that breaks it is."""
    with pytest.raises(ZeroDivisionError):
        sifted([1, 2, 3], doubled({1, 2, 3}, ZeroDivisionError)[0])
    results, failed = sifted([1, 2, 3], doubled({2}, ZeroDivisionError)[0])
    assert results == [2, 6] and [item for item, _ in failed] == [2]
    assert [item for item, _ in sifted([1, 2], doubled({1, 2})[0])[1]] == [1, 2]
