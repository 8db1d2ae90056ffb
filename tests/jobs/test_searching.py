"""A query to its rows: the adapter that fits, the model that made them, and two rankings as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold import Embedder, InputError
from fivefold.jobs.origin import origin_of, prepare
from fivefold.jobs.searching import FUSION_RANK, Searcher, fused
from fivefold.jobs.store import Hit, Rows, Store
from fivefold.jobs.stores import open_store

TEXTS = ["a brown fox", "der Hund", "el río"]


@pytest.fixture(scope="module")
def embedder(tiny_folder: Path) -> Embedder:
    return Embedder.load(tiny_folder)


def filled(url: str, embedder: Embedder, **options: object) -> Store:
    store = open_store(url)
    columns = pa.table({"text": TEXTS})
    prepare(store, origin_of(embedder, task="retrieval.passage", **options), columns.schema)
    store.upsert(Rows(["a", "b", "c"], embedder.encode_document(TEXTS, **options), columns))
    return store


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_the_query_adapter_finds_vectors_of_any_precision(embedder: Embedder, tmp_path: Path, precision: str) -> None:
    store = filled(f"parquet://{tmp_path}/x", embedder, precision=precision, truncate_dim=20)
    hits = Searcher(store, embedder).search("a fox", limit=3)
    query = embedder.encode_query("a fox", truncate_dim=20)
    stored = embedder.encode_document(TEXTS, truncate_dim=20)
    if precision.endswith("binary"):
        stored = np.where(stored > 0, 1, -1) / np.sqrt(20)
    expected = dict(zip("abc", stored @ query, strict=True))
    bound = 1e-5 if precision != "int8" and precision != "uint8" else 0.01
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=bound)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_other_models_are_refused(embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(f"parquet://{tmp_path}/x", embedder)
    monkeypatch.setattr("fivefold.jobs.origin.PROBE_TEXT", "der Hund am Fluss")  # as another model answers
    with pytest.raises(InputError, match="other weights.*load the model it was made with"):
        Searcher(store, embedder)


def test_hybrid_fuses_both_rankings(embedder: Embedder, tmp_path: Path) -> None:
    store = filled(f"lancedb://{tmp_path}/db/x", embedder)
    hits = Searcher(store, embedder).search("Hund", limit=3, hybrid=True)
    assert hits[0].id == "b" and hits[0].columns == {"text": "der Hund"}
    assert hits[0].score > 1 / (FUSION_RANK + 1)
    with pytest.raises(InputError, match="does not rank by words"):
        Searcher(filled(f"parquet://{tmp_path}/x", embedder), embedder).search("Hund", limit=3, hybrid=True)


rankings = st.lists(st.lists(st.sampled_from("abcdef"), unique=True), min_size=1, max_size=3)


@given(rankings, st.integers(1, 6))
def test_fusion_is_the_sum_of_inverse_ranks(given_rankings: list[list[str]], limit: int) -> None:
    hits = fused([[Hit(name, 0.5, {}) for name in ranking] for ranking in given_rankings], limit)
    names = set().union(*given_rankings)
    scores = {
        name: sum(1 / (FUSION_RANK + 1 + ranking.index(name)) for ranking in given_rankings if name in ranking)
        for name in names
    }
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:limit])
    assert all(hit.score == pytest.approx(scores[hit.id]) for hit in hits)
