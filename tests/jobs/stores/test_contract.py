"""What every store promises, of every engine: the same tests over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fivefold.errors import InputError, StoreError
from fivefold.jobs.origin import prepare
from fivefold.jobs.store import Rows, Store, WordStore
from fivefold.jobs.stores import open_store
from tests.jobs.stores.things import DIMENSIONS, ORIGIN, SCHEMA, columns_of, directions, id_of, rows

# Chroma's client leaves its connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@contextmanager
def opened(url: str) -> Iterator[Store]:
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def ids_found(store: Store, queries: np.ndarray, limit: int) -> list[set[str]]:
    return [{hit.id for hit in store.search(query, limit=limit)} for query in queries]


def test_rows_are_stored_replaced_found_and_kept(url: str) -> None:
    first, second = rows(range(300)), rows(range(200, 400), seed=1)
    with opened(url) as store:
        assert store.origin() is None
        with pytest.raises(StoreError, match="no such collection"):
            store.count()
        prepare(store, ORIGIN, SCHEMA)
        assert store.origin() == ORIGIN and store.count() == 0
        assert store.search(first.vectors[0], limit=3) == []
        store.upsert(first)
        store.upsert(first)
        assert store.count() == 300
        store.upsert(second)
        assert store.count() == 400
    with opened(url) as store:  # as after a restart
        assert store.origin() == ORIGIN and store.count() == 400
        for number, vector in [(7, first.vectors[7]), (250, second.vectors[50]), (399, second.vectors[199])]:
            hit = store.search(vector, limit=5)[0]
            assert hit.id == id_of(number) and hit.score == pytest.approx(1, abs=1e-3)
            assert hit.columns == columns_of(number)
        hits = store.search(first.vectors[250], limit=400)  # the old vector of a row that was replaced
        assert len(hits) == 400 and hits == sorted(hits, key=lambda hit: -hit.score)
        assert all(hit.score < 0.9 for hit in hits)


def test_a_documents_rows_are_taken_out(url: str) -> None:
    with opened(url) as store:
        prepare(store, ORIGIN, SCHEMA)
        store.upsert(rows(range(100)))
        store.delete("o'document 3")
        store.delete("o'document 99")
        assert store.count() == 90
        (found,) = ids_found(store, directions(1, seed=9), 100)
        assert found == {id_of(number) for number in range(100) if number // 10 != 3}


def test_search_finds_what_brute_force_finds(url: str) -> None:
    count = 2000 if url.startswith("qdrant:///") else 10_000  # Qdrant's files take a commit a point
    all_rows, queries = rows(range(count)), directions(30, seed=5)
    with opened(url) as store:
        prepare(store, ORIGIN, SCHEMA)
        store.upsert(all_rows)
        assert store.count() == count
        best = np.argsort(-(queries @ all_rows.vectors.T), axis=1)[:, :10]
        expected = [{id_of(number) for number in row} for row in best.tolist()]
        found = ids_found(store, queries, 10)
    assert sum(len(a & b) for a, b in zip(found, expected, strict=True)) >= 0.99 * 300


def test_other_origins_are_refused(url: str) -> None:
    with opened(url) as store:
        prepare(store, ORIGIN, SCHEMA)
    with opened(url) as store:
        prepare(store, ORIGIN, SCHEMA)
        for other, said in (
            (replace(ORIGIN, task="separation"), "task: 'retrieval.passage' in the index, 'separation' asked for"),
            (replace(ORIGIN, dimensions=32), f"dimensions: {DIMENSIONS} in the index, 32 asked for"),
            (replace(ORIGIN, normalized=False), "normalized: True in the index"),
            (replace(ORIGIN, model="other", probe=(1.0, 0.0)), "model: 'v3-nano' in the index, 'other' asked for"),
        ):
            with pytest.raises(InputError, match=said):
                prepare(store, other, SCHEMA)


def test_columns_of_the_stores_own_are_refused(url: str) -> None:
    with opened(url) as store:
        for name in ("id", "vector"):
            with pytest.raises(InputError, match=f"the column '{name}' is the store's own"):
                prepare(store, ORIGIN, pa.schema([(name, pa.string())]))


def test_rows_need_no_columns(url: str) -> None:
    with opened(url) as store:
        prepare(store, ORIGIN, pa.schema([("n", pa.int64())]))
        store.upsert(Rows(["a", "b"], directions(2), pa.table({"n": pa.array([None, 3], pa.int64())})))
        assert [(hit.id, hit.columns) for hit in store.search(directions(1)[0], limit=2)] == [
            ("a", {"n": None}),
            ("b", {"n": 3}),
        ]


def test_words_are_ranked_where_the_store_can(url: str) -> None:
    with opened(url) as store:
        if not isinstance(store, WordStore):
            pytest.skip("it does not rank by words")
        prepare(store, ORIGIN, SCHEMA)
        store.upsert(rows(range(50)))
        hits = store.find_words("a fox17 perhaps", limit=3)
        assert hits[0].id == id_of(17) and hits[0].columns == columns_of(17)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        store.upsert(rows(range(50, 60)))
        assert store.find_words("fox55", limit=1)[0].id == id_of(55)
