"""Batches of neighbours: whole, near, every row at most once."""

from collections import Counter
from itertools import islice, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.train import neighbours
from fivefold.train.batches import pair_set, sampler
from fivefold.train.corpora import Pair
from fivefold.train.neighbours import Cells, by_words, dealt_evenly, gathered, near, split
from tests.train import toys


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


TOPICS = ("sun", "rain", "bread", "stone", "river")


def topic(texts: list[str]) -> np.ndarray:
    """Which topic a text names."""
    return np.eye(len(TOPICS), dtype=np.float32)[[TOPICS.index(text.split()[1]) for text in texts]]


def drawn(count: int) -> list[tuple[str, str, str]]:
    names = np.random.default_rng(1).choice(TOPICS, count)
    return [(f"{n}", f"query: {name} {n}", "") for n, name in enumerate(names)]


def test_batches_are_gathered_from_cells_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "POOL", 160)
    monkeypatch.setattr(neighbours, "CELL", 4)
    rows = drawn(400)
    found = list(gathered(rows, 8, 2, topic, np.random.default_rng(0)))
    assert len(found) == 400 and len(set(found)) == 400 and set(found) == set(rows)
    shared = []
    for start in range(0, 400, 16):
        named = Counter(target.split()[1] for _, target, _ in found[start : start + 16])
        shared.append(max(named.values()))
    at_random = [max(Counter(t.split()[1] for _, t, _ in rows[n : n + 16]).values()) for n in range(0, 400, 16)]
    assert np.mean(shared) > np.mean(at_random) + 1.5
    assert list(gathered(rows, 8, 2, topic, np.random.default_rng(0))) == found


def test_rows_without_end_are_gathered_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "POOL", 50)
    monkeypatch.setattr(neighbours, "CELL", 4)
    endless = (row for rows in repeat(drawn(60)) for row in rows)
    assert len(list(islice(gathered(endless, 7, 3, topic, np.random.default_rng(0)), 210))) == 210


@given(st.lists(st.integers(0, 3000), min_size=2, max_size=80), st.integers(1, 5))
def test_rows_are_dealt_evenly(sizes: list[int], devices: int) -> None:
    rows = [(f"{n}", "x" * size, "") for n, size in enumerate(sizes[: len(sizes) // devices * devices])]
    dealt = dealt_evenly(rows, devices)
    assert sorted(dealt) == sorted(rows)
    each = len(rows) // devices
    hands = [dealt[start : start + each] for start in range(0, len(rows), each or 1)]
    for hand in hands:
        assert [int(n) for n, _, _ in hand] == sorted(int(n) for n, _, _ in hand)


def test_no_device_waits_for_a_long_text() -> None:
    rng = np.random.default_rng(0)
    rows = [("", "x" * int(size), "") for size in (2000, *np.exp(rng.normal(4, 1, 63)))]
    loads = [sum(len(text) for _, text, _ in hand) for hand in (dealt_evenly(rows, 2)[:32], dealt_evenly(rows, 2)[32:])]
    assert max(loads) < 1.05 * min(loads)


def test_texts_of_the_same_rare_words_are_near() -> None:
    _, tokenizer = toys.student()
    table = np.random.default_rng(0).standard_normal((tokenizer.get_vocab_size(), 256)).astype(np.float32)
    texts = ["the red sun", "the sun", "a cold stone", ""]
    vectors = by_words(tokenizer, table)([*texts, *["the a"] * 50])
    assert vectors.shape == (54, 256) and vectors.dtype == np.float32 and np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[:3], axis=1), 1, rtol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.2 and cosines[1, 4] < 0.95
    assert not vectors[3].any()
