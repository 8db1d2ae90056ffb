"""A first pass by signs or by a few dimensions, scored in full: on v3-nano's vectors of the corpus, near brute force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import fivefold
from fivefold import Embedder
from fivefold.jobs.origin import origin_of, prepare
from fivefold.jobs.store import Rows
from fivefold.jobs.stores import open_store
from fivefold.vectors import FloatArray
from tests.jobs.stores import servers

pytestmark = pytest.mark.stores
CORPUS = Path(__file__).parents[3] / "examples" / "corpus"
NANO = Path(fivefold.__file__).parent / "models" / "v3-nano"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    if not NANO.is_dir():
        pytest.skip("this checkout came without v3-nano")
    return Embedder.load("v3-nano")


@pytest.fixture(scope="module")
def passages(embedder: Embedder) -> tuple[list[str], FloatArray]:
    texts = [chunk for path in sorted(CORPUS.glob("*.txt")) for chunk in path.read_text("utf-8").split(". ")]
    return texts, embedder.encode_document(texts)


@pytest.fixture(params=["usearch", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "usearch":
        pytest.importorskip("usearch")
        yield f"usearch://{tmp_path}/x?"
        return
    server: servers.Server = request.getfixturevalue("postgresql_server")
    yield server.url.replace("things", f"first_{id(tmp_path)}") + "&"


@pytest.mark.parametrize("first", ["binary", "96"])
def test_its_candidates_hold_the_nearest(
    address: str, first: str, embedder: Embedder, passages: tuple[list[str], FloatArray]
) -> None:
    texts, vectors = passages
    queries = embedder.encode_query(texts[::7][:30])
    columns = pa.table({"text": texts})
    for time in range(2):  # made, then opened again
        store = open_store(f"{address}first={first}")
        if time == 0:
            prepare(store, origin_of(embedder, task="retrieval.passage"), columns.schema)
            store.upsert(Rows([str(i) for i in range(len(texts))], vectors, columns))
        found = [[(int(hit.id), hit.score) for hit in store.search(query, limit=10)] for query in queries]
        store.close()
        best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
        hits = sum(len({i for i, _ in row} & set(nearest)) for row, nearest in zip(found, best.tolist(), strict=True))
        assert hits >= 0.97 * best.size, hits / best.size
        for query, row in zip(queries, found, strict=True):
            assert [score for _, score in row] == pytest.approx([vectors[i] @ query for i, _ in row], abs=1e-4)
