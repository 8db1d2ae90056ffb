"""packing.py: what lies where in a pack."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fivefold.packing import TaskSlice, pack, plan, rounded
from tests import toy


def test_a_pack_lays_sequences_end_to_end() -> None:
    """Ids, positions, boundaries, spans and slices of three sequences."""
    batch = pack([toy.sequence([0, 5, 2], 1, [(0, 3), (1, 2)]), toy.sequence([0, 2], 1), toy.sequence([0, 6, 7, 2], 3)])
    assert batch.input_ids.tolist() == [0, 5, 2, 0, 2, 0, 6, 7, 2]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert batch.cu_seqlens.tolist() == [0, 3, 5, 9]
    assert batch.spans.tolist() == [[0, 3], [1, 2], [3, 5], [5, 9]]
    assert batch.task_slices == (TaskSlice(1, 0, 5), TaskSlice(3, 5, 9))
    assert batch.sequence_slices == (TaskSlice(1, 0, 2), TaskSlice(3, 2, 3))
    assert batch.max_seqlen == 4


def test_plan_orders_by_task_then_longest_first() -> None:
    """So that a pack has few slices and equal lengths are neighbours."""
    rows = [toy.sequence([5] * n, t) for n, t in ((2, 1), (4, 0), (3, 1), (2, 0), (4, 1))]
    assert list(plan(rows, 100)) == [[1, 3, 4, 2, 0]]


def test_a_sequence_over_the_budget_runs_alone() -> None:
    """It is not refused and drags nobody along."""
    rows = [toy.sequence([5] * n) for n in (3, 50, 4)]
    assert list(plan(rows, 8)) == [[1], [2, 0]]


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(-1, 2)), min_size=1, max_size=6))
def test_rounding_adds_a_sequence_that_nobody_asked_for(parts: list[tuple[int, int]]) -> None:
    """What was there stays; numbers of tokens are few."""
    batch = pack([toy.sequence([5] * n, t) for n, t in parts])
    whole, tokens = rounded(batch), len(batch.input_ids)
    size = len(whole.input_ids)
    assert tokens <= size < tokens + 32 and size % (8 if tokens <= 128 else 32) == 0
    assert whole.input_ids[:tokens].equal(batch.input_ids) and whole.spans is batch.spans
    assert whole.cu_seqlens[-1] == sum(whole.seqlens) == whole.task_slices[-1].stop == len(whole.position_ids) == size
    assert len(whole.cu_seqlens) == len(whole.seqlens) + 1 == len(whole.task_ids) + 1 <= len(batch.seqlens) + 2
    assert whole.position_ids[tokens:].tolist() == list(range(size - tokens))


def test_moving_keeps_spans_on_the_host() -> None:
    """Only what the model reads goes to the device."""
    moved = pack([toy.sequence([0, 2])]).to(torch.device("meta"))
    assert moved.input_ids.is_meta and moved.cu_seqlens.is_meta
    assert not moved.spans.is_meta
