"""Batches of rows that are alike, so that what a text is told apart from is hard to tell apart (topic-aware sampling,
Hofstätter et al. 2021, arXiv 2104.06967).

Among rows at random nearly every wrong passage is far from the question, and a softmax over a batch has little to teach. Rows
are cut in two along the main direction of their vectors, and the halves again, until each cell fills one batch, or a part
of one.

Shapes: S rows, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from fivefold.train.corpora import Pair

Read = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to vectors: [S, D]."""
DIRECTION_STEPS = 8
"""Of power iteration: a cut needs no more than a rough main direction."""

POOL, CELL = 16_384, 16
"""Rows among which neighbours are sought, and neighbours that stand together: a batch has several cells, and variety."""
WORDS, RARE = 128, 1e-3
"""Tokens of a text that say what it is about, and the share of all tokens at which one counts half."""

Drawn = tuple[str, str, str]
"""A text for the student, what the teacher reads in place of it, and as the same."""


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


def gathered(rows: Iterable[Drawn], batch: int, devices: int, read: Read, rng: Generator) -> Iterator[Drawn]:
    """Rows in batches of cells of neighbours by what the teacher reads, and in each batch of all devices as much for each."""
    stream, waiting = iter(rows), list[Drawn]()
    while pool := list(islice(stream, POOL)):
        cells = split(read([target for _, target, _ in pool]), CELL, rng)
        waiting += (pool[i] for n in rng.permutation(len(cells)) for i in cells[n])
        whole = len(waiting) // (batch * devices) * batch * devices
        for start in range(0, whole, batch * devices):
            yield from dealt_evenly(waiting[start : start + batch * devices], devices)
        del waiting[:whole]


def dealt_evenly(rows: Sequence[Drawn], devices: int) -> list[Drawn]:
    """As many rows for each device, one device's behind the other's, and about as much text: the longest are dealt first,
    each to the device with the least. None has to wait long for the others."""
    hands: list[list[int]] = [[] for _ in range(devices)]
    loads = [0] * devices
    sizes = [sum(len(text.encode()) for text in row) for row in rows]
    for i in sorted(range(len(rows)), key=sizes.__getitem__, reverse=True):
        open_hands = (n for n in range(devices) if len(hands[n]) < len(rows) // devices)
        hand = min(open_hands, key=loads.__getitem__)
        hands[hand].append(i)
        loads[hand] += sizes[i]
    return [rows[i] for hand in hands for i in sorted(hand)]


def by_words(tokenizer: Tokenizer, table: NDArray[np.float32]) -> Read:
    """Texts to weighted means of the vectors of their words [V, D], rare ones counting more (Arora et al. 2017, A Simple but
    Tough-to-Beat Baseline for Sentence Embeddings), of unit length: rough, and thousands a second."""

    def read(texts: Sequence[str]) -> NDArray[np.float32]:
        found = [e.ids[:WORDS] for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        ids = np.fromiter((i for row in found for i in row), np.intp)
        ends = np.cumsum([0, *map(len, found)])
        shares = np.bincount(ids, minlength=len(table)) / max(len(ids), 1)
        weights = (RARE / (RARE + shares)).astype(np.float32)[ids]
        sums = csr_array((weights, ids, ends), shape=(len(texts), len(table))) @ table
        vectors: NDArray[np.float32] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-30)
        return vectors

    return read


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
