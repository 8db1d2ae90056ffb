"""A query's text to the rows that answer it: the adapter that fits the passages, by vector or by vector and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fivefold.embedder import Embedder
from fivefold.errors import DimensionError, InputError, UnknownTaskError
from fivefold.jobs.origin import FITTING, differences, origin_of, query_task
from fivefold.jobs.store import Hit, Origin, Store, WordStore

FUSION_RANK = 60
"""k of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): how little the first ranks stand out."""
DEPTH = 4
"""Rows taken of each ranking before two are fused, as a multiple of those wanted."""


class Searcher:
    """A store's rows and the model they were made with.

    Raises:
        InputError: nothing is stored, it was made with another model, or `task` does not fit.
    """

    def __init__(self, store: Store, embedder: Embedder, *, task: str | None = FITTING) -> None:
        stored = store.origin()
        if stored is None:
            raise InputError("there is nothing to search: the collection does not exist; index something into it first")
        self._task = query_task(stored, task)
        _check_model(stored, embedder)
        self._store, self._embedder, self._dimensions = store, embedder, stored.dimensions

    def search(self, query: str, *, limit: int, hybrid: bool = False) -> list[Hit]:
        """The rows nearest to a query; `hybrid` fuses them with those the store finds by words.

        The score is the cosine, and of a hybrid search the sum of 1 / (60 + rank) over both rankings.

        Raises:
            InputError: `hybrid`, and the store does not rank by words.
        """
        vector = self._embedder.encode(query, task=self._task, truncate_dim=self._dimensions)
        if not hybrid:
            return self._store.search(np.asarray(vector), limit=limit)
        if not isinstance(self._store, WordStore):
            raise InputError(
                "this store does not rank by words; search by vector alone, or use one that does: LanceDB, Milvus or "
                "PostgreSQL"
            )
        by_vector = self._store.search(np.asarray(vector), limit=DEPTH * limit)
        return fused([by_vector, self._store.find_words(query, limit=DEPTH * limit)], limit)


def fused(rankings: Sequence[list[Hit]], limit: int) -> list[Hit]:
    """Several rankings as one, by reciprocal rank: scores of different kinds need no common scale."""
    scores: dict[str, float] = {}
    hits: dict[str, Hit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            scores[hit.id] = scores.get(hit.id, 0) + 1 / (FUSION_RANK + rank)
            hits.setdefault(hit.id, hit)
    best = sorted(scores, key=lambda name: -scores[name])[:limit]
    return [replace(hits[name], score=scores[name]) for name in best]


def _check_model(stored: Origin, embedder: Embedder) -> None:
    """Ask the model what the collection's asked when it was made."""
    try:
        given = origin_of(
            embedder,
            task=stored.task,
            truncate_dim=stored.dimensions,
            precision=stored.precision,
            normalize=stored.normalized,
        )
        different = differences(stored, given)
    except (UnknownTaskError, DimensionError) as error:
        different = [f"model: {stored.model!r} in the index, {embedder.model_name!r} asked for: {error}"]
    if different:
        raise InputError(
            f"the query would not fit what is stored ({'; '.join(different)}); load the model it was made with"
        )
