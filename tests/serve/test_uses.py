"""Classify, rerank, segment."""

from __future__ import annotations

import numpy as np
import pytest

from fivefold import Embedder

TEXTS = ["a brown fox", "der Hund", "el río"]
LABELS = ["animal", "water", "weather"]


def test_classify_is_a_softmax_of_cosines(server, embedder: Embedder) -> None:
    answer = server.post("/v1/classify", {"input": TEXTS, "labels": LABELS, "model": "tiny"}).json()
    cosines = (
        np.asarray(embedder.encode(TEXTS, task="classification"))
        @ np.asarray(embedder.encode(LABELS, task="classification")).T
    )
    for index, row in enumerate(answer["data"]):
        scores = [p["score"] for p in row["predictions"]]
        assert (row["object"], row["index"]) == ("classification", index)
        assert [p["label"] for p in row["predictions"]] == LABELS
        assert sum(scores) == pytest.approx(1)
        np.testing.assert_allclose(scores, np.exp(cosines[index]) / np.exp(cosines[index]).sum(), rtol=1e-4)
        assert row["prediction"] == LABELS[int(np.argmax(cosines[index]))] and row["score"] == max(scores)
    assert answer["usage"]["total_tokens"] > 0


def test_classify_decides_each_group_of_labels_by_itself(server) -> None:
    groups = {"topic": LABELS, "tone": ["happy", "sad"]}
    row = server.post("/v1/classify", {"input": "fox", "labels": groups}).json()["data"][0]
    for name, labels in groups.items():
        alone = server.post("/v1/classify", {"input": "fox", "labels": labels}).json()["data"][0]
        assert row["prediction"][name] == alone["prediction"]
        assert row["score"][name] == pytest.approx(alone["score"], abs=1e-6)


@pytest.mark.parametrize("labels", [[], {}, {"a": []}, None, "animal", [3]])
def test_labels_must_be_labels(server, labels) -> None:
    assert server.post("/v1/classify", {"input": "fox", "labels": labels}).status_code == 400


def test_rerank_orders_by_cosine_and_says_so(server, embedder: Embedder) -> None:
    body = {"query": "wo ist der Hund", "documents": [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]}
    answer = server.post("/v1/rerank", body).json()
    cosines = np.asarray(embedder.encode_document(TEXTS)) @ np.asarray(embedder.encode_query(body["query"]))
    assert [r["index"] for r in answer["results"]] == np.argsort(-cosines).tolist()
    for result in answer["results"]:
        assert result["relevance_score"] == pytest.approx(float(cosines[result["index"]]), abs=1e-5)
        assert result["document"]["text"] == TEXTS[result["index"]]
    assert "not a cross-encoder" in answer["method"] and answer["object"] == "list"
    first = server.post("/v1/rerank", {**body, "top_n": 1, "return_documents": False}).json()["results"]
    assert len(first) == 1 and "document" not in first[0]
    assert server.post("/v1/rerank", {"query": "x", "documents": []}).json()["results"] == []
    assert server.post("/v1/rerank", {**body, "top_n": 0}).status_code == 400


def test_segment_gives_spans(server, embedder: Embedder) -> None:
    content = "Der Fuchs springt. 敏捷的狐狸跳过了河边。 El zorro salta sobre el perro. 🦊 ok\ud83d"
    answer = server.post("/v1/segment", content=__import__("json").dumps({"content": content, "chunk_tokens": 12}))
    assert answer.status_code == 200
    found = answer.json()
    assert found["num_chunks"] == len(found["chunk_positions"]) > 2
    assert [content[a:b] for a, b in found["chunk_positions"]] == found["chunks"]
    bare = server.post("/v1/segment", {"content": "a b", "return_chunks": False}).json()
    assert "chunks" not in bare and bare["chunk_positions"] == [[0, 3]]
    assert server.post("/v1/segment", {"content": "a", "chunk_tokens": 10**6}).status_code == 400
    assert server.post("/v1/segment", {"content": ""}).json()["num_chunks"] == 0
