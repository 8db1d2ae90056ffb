"""Vector stores, filled and searched through the server: what they find is what the vectors in process find."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from fivefold import Embedder
from tests.clients.calls import KEY, Call, chroma_function

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

TEXTS = [
    "Bread is made of flour, water and yeast.",
    "Der Bahnhof liegt im Zentrum der Stadt.",
    "Las plantas necesitan luz y agua.",
    "The train to Paris leaves at nine.",
]
QUERY = "Where is the railway station?"
Ranking = list[tuple[int, float]]


@pytest.fixture(scope="module")
def expected(embedder: Embedder) -> Ranking:
    """Texts from best to worst, with their cosines."""
    cosines = np.asarray(embedder.encode_document(TEXTS)) @ np.asarray(embedder.encode_query(QUERY))
    return [(int(i), float(cosines[i])) for i in np.argsort(-cosines)]


def same(found: Ranking, expected: Ranking) -> None:
    assert [number for number, _ in found] == [number for number, _ in expected]
    np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], atol=1e-4)


def test_chroma(url: str, expected: Ranking) -> None:
    function = chroma_function(
        Call(url), task="retrieval.passage", query_config={"task": "retrieval.query"}, dimensions=384
    )
    chromadb = pytest.importorskip("chromadb")
    collection = chromadb.EphemeralClient().create_collection(
        "texts", embedding_function=function, configuration={"hnsw": {"space": "cosine"}}
    )
    collection.add(ids=[str(i) for i in range(len(TEXTS))], documents=TEXTS)
    found = collection.query(query_texts=[QUERY], n_results=len(TEXTS))
    same([(int(i), 1 - d) for i, d in zip(found["ids"][0], found["distances"][0], strict=True)], expected)


def test_milvus(url: str, expected: Ranking, tmp_path: Path) -> None:
    jina = pytest.importorskip("pymilvus.model.dense.jinaai")
    pytest.importorskip("milvus_lite")
    from pymilvus import MilvusClient

    client = MilvusClient(str(tmp_path / "milvus.db"))
    with patch.object(jina, "API_URL", url + "/v1/embeddings"):
        function = jina.JinaEmbeddingFunction("v3-nano", KEY)
        client.create_collection("texts", dimension=function.dim, metric_type="COSINE")
        rows = [{"id": i, "vector": vector} for i, vector in enumerate(function.encode_documents(TEXTS))]
        client.insert("texts", rows)
        (found,) = client.search("texts", data=function.encode_queries([QUERY]), limit=len(TEXTS))
    client.close()
    same([(hit["id"], hit["distance"]) for hit in found], expected)


def test_qdrant(url: str, expected: Ranking) -> None:
    qdrant = pytest.importorskip("qdrant_client")
    openai = pytest.importorskip("openai").OpenAI(base_url=url + "/v1", api_key=KEY)

    def embed(texts: list[str], task: str) -> list[list[float]]:
        found = openai.embeddings.create(model="v3-nano", input=texts, extra_body={"task": task})
        return [row.embedding for row in found.data]

    client = qdrant.QdrantClient(":memory:")
    models = qdrant.models
    client.create_collection("texts", models.VectorParams(size=384, distance=models.Distance.COSINE))
    vectors = embed(TEXTS, "retrieval.passage")
    client.upsert("texts", [models.PointStruct(id=i, vector=vector) for i, vector in enumerate(vectors)])
    found = client.query_points("texts", embed([QUERY], "retrieval.query")[0], limit=len(TEXTS)).points
    same([(point.id, point.score) for point in found], expected)
