"""Batches of rows that ask alike, so that what a pair is told apart from is hard to tell apart (topic-aware sampling,
Hofstätter et al. 2021, arXiv 2104.06967).

Among rows at random nearly every wrong passage is far from the question, and a softmax over a batch has little to teach. Rows
are cut in two along the main direction of their vectors, and the halves again, until each cell fills one batch.

Shapes: S rows, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fivefold.train.corpora import Pair

Read = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to vectors: [S, D]."""
DIRECTION_STEPS = 8
"""Of power iteration: a cut needs no more than a rough main direction."""


class Cells(list[Pair]):
    """Rows that stand in whole batches already, and stay in them."""


def near(rows: Sequence[Pair], count: int, batch: int, read: Read, rng: Generator) -> Cells:
    """`count` of the rows in batches of neighbours by what they ask; fewer where there are not as many batches.

    Equal texts are taken once, as in a batch each would be told apart from the other.
    """
    asked: dict[str, Pair] = {}
    for row in {row.passage: row for row in rows}.values():
        asked.setdefault(row.query, row)
    telling = list(asked.values())
    cells = split(read([row.query for row in telling]), batch, rng)
    chosen = rng.permutation(len(cells))[: count // batch]
    return Cells(telling[i] for cell in chosen for i in cells[cell])


def split(vectors: NDArray[np.float32], size: int, rng: Generator) -> list[NDArray[np.intp]]:
    """Numbers of rows in cells of exactly `size`, each near each other; fewer than `size` are left over: [S, D]."""
    numbers = rng.permutation(len(vectors))[: len(vectors) // size * size]
    return _split(vectors, numbers, size, rng)


def _split(
    vectors: NDArray[np.float32], numbers: NDArray[np.intp], size: int, rng: Generator
) -> list[NDArray[np.intp]]:
    if len(numbers) <= size:
        return [numbers] if len(numbers) else []
    centred = vectors[numbers] - vectors[numbers].mean(0)
    direction = rng.standard_normal(vectors.shape[1])
    for _ in range(DIRECTION_STEPS):
        direction = centred.T @ (centred @ direction)
        direction /= np.linalg.norm(direction) + 1e-30
    ordered = numbers[np.argsort(centred @ direction, kind="stable")]
    half = len(ordered) // size // 2 * size
    return _split(vectors, ordered[:half], size, rng) + _split(vectors, ordered[half:], size, rng)
