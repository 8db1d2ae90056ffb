"""Batches of neighbours: whole, near, every row at most once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.train.batches import pair_set, sampler
from fivefold.train.corpora import Pair
from fivefold.train.neighbours import Cells, near, split


@given(st.integers(0, 60), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_cells_are_full_and_share_nothing(rows: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = split(rng.standard_normal((rows, 4)).astype(np.float32), size, rng)
    assert len(cells) == rows // size
    assert all(len(cell) == size for cell in cells)
    taken = [number for cell in cells for number in cell]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(range(rows))


def test_rows_that_are_all_alike_are_split_too() -> None:
    assert [len(cell) for cell in split(np.ones((12, 3), np.float32), 4, np.random.default_rng(0))] == [4, 4, 4]


def test_groups_far_apart_do_not_mix() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(64) % 8
    centres = rng.standard_normal((8, 16)) * 10
    vectors = (centres[group] + rng.standard_normal((64, 16)) / 10).astype(np.float32)
    found = split(vectors, 8, rng)
    assert sorted(len(set(group[cell])) for cell in found) == [1] * 8


def read(texts: list[str]) -> np.ndarray:
    """The number a text ends in, and how long it is."""
    return np.array([[int(text.split()[-1]), len(text) / 100] for text in texts], np.float32)


def pairs(count: int) -> list[Pair]:
    return [Pair("en", f"question {n}", f"passage {n}") for n in range(count)]


def test_near_gives_batches_of_what_is_asked_alike() -> None:
    rows = near(pairs(64), 24, 8, read, np.random.default_rng(0))
    assert isinstance(rows, Cells)
    assert len(rows) == 24
    for start in range(0, 24, 8):
        asked = [int(row.query.split()[-1]) for row in rows[start : start + 8]]
        assert max(asked) - min(asked) < 10


def test_near_takes_equal_texts_once() -> None:
    again = [*pairs(20), *pairs(20), Pair("en", "question 3", "another 3"), Pair("en", "another 4", "passage 4")]
    rows = near(again, 40, 4, read, np.random.default_rng(0))
    assert len(rows) == 20
    assert len({row.query for row in rows}) == len({row.passage for row in rows}) == 20


@pytest.mark.parametrize("seed", range(3))
def test_the_sampler_keeps_cells_together(seed: int) -> None:
    rows = near(pairs(32), 32, 8, read, np.random.default_rng(seed))
    data = pair_set(rows).add_column("target_query", ["x"] * 32)
    batches = list(sampler(data, batch_size=8, drop_last=True))
    assert batches == [list(range(start, start + 8)) for start in range(0, 32, 8)]


def test_the_sampler_shuffles_other_pairs() -> None:
    batches = list(sampler(pair_set(pairs(32)), batch_size=8, drop_last=True))
    assert sorted(number for batch in batches for number in batch) == list(range(32))
    assert batches != [list(range(start, start + 8)) for start in range(0, 32, 8)]
