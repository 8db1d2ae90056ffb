from __future__ import annotations

import math

import numpy as np
import pytest

from fivefold.evaluate import metrics
from fivefold.vectors import normalize


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return normalize(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def test_spearman_is_one_where_the_order_is_right() -> None:
    first, second = draw(6, 4), draw(6, 4, seed=1)
    cosines = (first * second).sum(1)
    assert metrics.spearman(first, second, (cosines * 7 + 3).tolist()) == pytest.approx(1)
    assert metrics.spearman(first, second, (-cosines).tolist()) == pytest.approx(-1)


def test_matched_counts_both_directions() -> None:
    left = np.eye(3, dtype=np.float32)
    right = left[[0, 1, 1]]  # the third has no match of its own
    assert metrics.matched(left, left) == 1
    assert metrics.matched(left, right) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_ndcg_is_a_discount_by_rank_and_nothing_past_the_tenth() -> None:
    scores = np.tile(np.arange(12, 0, -1, dtype=np.float32), (3, 1))
    gold = np.array([0, 3, 10])
    assert metrics.ndcg10_of(scores, gold) == pytest.approx((1 + 1 / math.log2(5) + 0) / 3)
    queries, passages = draw(4, 5), draw(9, 5, seed=1)
    expected = [sorted(-(passages @ q)).index(-(passages[i] @ q)) for i, q in enumerate(queries)]
    expected = [1 / math.log2(rank + 2) for rank in expected]
    assert metrics.ndcg10(queries, passages, np.arange(4)) == pytest.approx(np.mean(expected))


def test_each_owner_has_its_best_chunk() -> None:
    scores = np.array([[1, 5, 3, 2], [4, 0, -1, -2]], dtype=np.float32)
    assert metrics.best_of_each(scores, np.array([0, 0, 1, 1])).tolist() == [[5, 3], [4, -1]]


def test_classes_that_lie_apart_are_found() -> None:
    centres = np.eye(3, 8, dtype=np.float32)
    labels = ["abc"[i % 3] for i in range(30)]
    vectors = normalize(centres[[i % 3 for i in range(30)]] + 0.1 * draw(30, 8))
    parts = vectors[:18], labels[:18], vectors[18:], labels[18:]
    assert metrics.linear_probe(*parts) == metrics.nearest_neighbours(*parts) == 1
    assert metrics.v_measure(vectors, labels) == pytest.approx(1)
    assert metrics.v_measure(draw(30, 8, seed=2), labels) < 0.5
    assert metrics.nearest_neighbours(vectors[:2], labels[:2], vectors[:2], labels[:2]) == 0.5  # two voters tie
