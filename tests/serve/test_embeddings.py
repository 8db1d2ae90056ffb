"""POST /v1/embeddings and its Infinity form: every kind of input and option, against the embedder itself."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from fivefold import TASKS, Embedder
from fivefold.vectors import to_binary, to_int8, to_ubinary

TEXTS = ["a brown fox", "der Hund", "", "敏捷的狐狸", "el río"]
LONG = "fox dog river " * 60


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], dtype=np.float32)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-6)


@pytest.mark.parametrize("task", [None, *(task.name for task in TASKS)])
def test_vectors_are_the_embedders(server, embedder: Embedder, task: str | None) -> None:
    answer = server.post("/v1/embeddings", {"input": TEXTS, "task": task, "model": "tiny"})
    close(vectors(answer), embedder.encode(TEXTS, task=task))


def test_the_body_has_the_fields_in_jinas_order(server) -> None:
    answer = server.post("/v1/embeddings", {"input": ["a", "b"]}).json()
    assert list(answer) == ["model", "object", "usage", "data"]
    assert answer["model"] == "tiny" and answer["object"] == "list"
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    assert [(row["object"], row["index"]) for row in answer["data"]] == [("embedding", 0), ("embedding", 1)]


def test_usage_counts_specials_but_not_prompts(server, embedder: Embedder) -> None:
    ids = [len(embedder.tokenizer.tokens(text, None).input_ids) for text in TEXTS]
    for task in (None, "retrieval.query", "retrieval.passage"):
        usage = server.post("/v1/embeddings", {"input": TEXTS[:2], "task": task}).json()["usage"]
        assert usage["total_tokens"] == sum(ids[:2])


@pytest.mark.parametrize(
    "given",
    [
        "a brown fox",
        ["a brown fox"],
        {"text": "a brown fox"},
        [{"text": "a brown fox"}],
        {"text": "a brown fox", "task": None, "image": None},
    ],
)
def test_every_form_of_one_text(server, embedder: Embedder, given: Any) -> None:
    close(vectors(server.post("/v1/embeddings", {"input": given})), embedder.encode(["a brown fox"]))


def test_token_ids_are_the_models_own(server, embedder: Embedder) -> None:
    ids = [embedder.tokenizer.tokens(text, None).input_ids.tolist() for text in TEXTS[:2]]
    expected = embedder.encode(TEXTS[:2], task="retrieval.query")
    body: dict[str, Any] = {"input": [row[1:-1] for row in ids], "task": "retrieval.query"}
    close(vectors(server.post("/v1/embeddings", body)), expected)
    body["input"] = ids  # with the special tokens
    close(vectors(server.post("/v1/embeddings", body)), expected)
    body["input"] = ids[1]
    close(vectors(server.post("/v1/embeddings", body)), expected[1:])
    refused = server.post("/v1/embeddings", {"input": [[5, 100_000]]})
    assert refused.status_code == 400 and "tiktoken" in refused.json()["detail"]


def test_tasks_for_each_input(server, embedder: Embedder) -> None:
    tasks = ["retrieval.query", None, "separation"]
    expected = embedder.encode(TEXTS[:3], task=tasks)
    close(vectors(server.post("/v1/embeddings", {"input": TEXTS[:3], "task": tasks})), expected)
    items = [{"text": text, "task": task} for text, task in zip(TEXTS, tasks, strict=False)]
    close(vectors(server.post("/v1/embeddings", {"input": items})), expected)
    items[1] = TEXTS[1]  # type: ignore[call-overload]
    mixed = vectors(server.post("/v1/embeddings", {"input": items, "task": "classification"}))
    close(mixed[1], embedder.encode(TEXTS[1], task="classification"))
    assert server.post("/v1/embeddings", {"input": TEXTS, "task": ["separation"]}).status_code == 400


@pytest.mark.parametrize("dimensions", [1, 8, 31, 32])
@pytest.mark.parametrize("normalized", [True, False])
def test_dimensions_are_cut_before_they_are_normalised(server, embedder: Embedder, dimensions, normalized) -> None:
    body = {"input": TEXTS, "dimensions": dimensions, "normalized": normalized}
    close(
        vectors(server.post("/v1/embeddings", body)),
        embedder.encode(TEXTS, truncate_dim=dimensions, normalize=normalized),
    )


@pytest.mark.parametrize("dimensions", [0, -1, 33, 1e30])
def test_dimensions_the_model_has_not(server, dimensions) -> None:
    answer = server.post("/v1/embeddings", {"input": "a", "dimensions": dimensions})
    assert answer.status_code == 400
    assert "dimensions" in answer.json()["detail"]


def test_encodings(server, embedder: Embedder) -> None:
    expected = np.asarray(embedder.encode(TEXTS), dtype=np.float32)

    def rows(**options: Any) -> list[Any]:
        answer = server.post("/v1/embeddings", {"input": TEXTS, **options})
        assert answer.status_code == 200, answer.text
        return [row["embedding"] for row in answer.json()["data"]]

    def decoded(texts: list[str]) -> np.ndarray:
        return np.array([np.frombuffer(base64.b64decode(text), dtype="<f4") for text in texts])

    floats = np.array(rows(), dtype=np.float32)
    close(floats, expected)
    assert (decoded(rows(embedding_type="base64")) == floats).all()
    assert (decoded(rows(encoding_format="base64")) == floats).all()
    assert rows(embedding_type="binary") == to_binary(expected).tolist()
    assert rows(encoding_type="ubinary") == to_ubinary(expected).tolist()
    assert np.abs(np.array(rows(embedding_type="int8")) - to_int8(expected)).max() <= 1
    both = rows(embedding_type=["float", "ubinary", "base64"])
    assert [list(row) for row in both] == [["float", "ubinary", "base64"]] * len(TEXTS)
    close([row["float"] for row in both], expected)
    close(rows(embedding_type=[]), expected)


def test_precedence_of_the_three_names_of_an_encoding(server) -> None:
    def kind(**options: Any) -> str:
        row = server.post("/v1/embeddings", {"input": "a", **options}).json()["data"][0]["embedding"]
        return type(row).__name__

    assert kind(encoding_format="base64", encoding_type="float") == "list"
    assert kind(encoding_format="float", embedding_type="base64", encoding_type="float") == "str"
    assert kind(encoding_format="base64", embedding_type=None, encoding_type=None) == "str"


def test_unknown_fields_and_null_options_are_taken(server, embedder: Embedder) -> None:
    nulls = dict.fromkeys(
        ("task", "dimensions", "normalized", "truncate", "late_chunking", "embedding_type", "user", "model")
    )
    answer = server.post("/v1/embeddings", {"input": TEXTS, "drop_params": True, "modality": "text", **nulls})
    close(vectors(answer), embedder.encode(TEXTS))


def test_long_texts_are_refused_unless_truncate(server, embedder: Embedder) -> None:
    refused = server.post("/v1/embeddings", {"input": ["short", LONG]})
    assert refused.status_code == 400
    assert "input 1" in refused.json()["detail"] and "64" in refused.json()["detail"]
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    answer = server.post("/v1/embeddings", {"input": ["short", LONG], "truncate": True})
    with pytest.warns(UserWarning, match="cut"):
        close(vectors(answer), embedder.encode(["short", LONG]))
    assert answer.json()["usage"]["total_tokens"] <= 64 + 10


def test_a_text_too_long_to_count_is_refused_or_cut(server) -> None:
    book = "x" * 200_000
    assert server.post("/v1/embeddings", {"input": book}).status_code == 400
    assert server.post("/v1/embeddings", {"input": book, "truncate": True}).status_code == 200


def test_late_chunking_pools_chunks_of_one_text(server, embedder: Embedder) -> None:
    chunks = ["The quick brown fox", "jumps over ", "the lazy dog."]
    document = "The quick brown fox jumps over the lazy dog."
    body = {"input": chunks, "late_chunking": True, "task": "retrieval.passage"}
    answer = server.post("/v1/embeddings", body)
    close(vectors(answer), embedder.encode_chunks(document, chunks=chunks).vectors)
    assert answer.json()["usage"]["total_tokens"] == len(embedder.tokenizer.tokens(document, None).input_ids)
    one = server.post("/v1/embeddings", {"input": document, "late_chunking": True})
    close(vectors(one), embedder.encode([document]))


def test_late_chunking_beyond_the_model_needs_to_be_asked_for(server, embedder: Embedder) -> None:
    chunks = ["the quick brown fox jumps"] * 30
    body = {"input": chunks, "late_chunking": True, "truncate": True}
    refused = server.post("/v1/embeddings", body)
    assert refused.status_code == 400 and "late_chunking_windows" in refused.json()["detail"]
    found = vectors(server.post("/v1/embeddings", {**body, "late_chunking_windows": True}))
    close(found, embedder.encode_chunks(" ".join(chunks), chunks=chunks, task=None).vectors)


def test_late_chunking_refuses_what_it_cannot_do(server) -> None:
    two_tasks = [{"text": "a", "task": "separation"}, "b"]
    assert server.post("/v1/embeddings", {"input": two_tasks, "late_chunking": True}).status_code == 400
    assert vectors(server.post("/v1/embeddings", {"input": [], "late_chunking": True})).size == 0


@pytest.mark.parametrize("chunks", [[""], ["", "a fox"], ["the fox", " \n", "jumps", ""]])
def test_late_chunking_reads_blank_inputs_by_themselves(server, embedder: Embedder, chunks: list[str]) -> None:
    body = {"input": chunks, "late_chunking": True, "task": "retrieval.passage"}
    found = iter(vectors(server.post("/v1/embeddings", body)))
    visible = [chunk for chunk in chunks if chunk.strip()]
    late = iter(embedder.encode_chunks(" ".join(visible), chunks=visible).vectors) if visible else iter(())
    for chunk in chunks:
        close(next(found), next(late) if chunk.strip() else embedder.encode_document(""))


def test_late_chunking_shares_no_context_between_requests(server, embedder: Embedder) -> None:
    documents = [["a brown fox", "jumps"], ["der Hund", "springt"], ["el río", "corre"]] * 4

    async def together() -> list[httpx.Response]:
        calls = (
            server._client.post("/v1/embeddings", json={"input": d, "late_chunking": True, "task": "separation"})
            for d in documents
        )
        return list(await asyncio.gather(*calls))

    for chunks, answer in zip(documents, server.run(together()), strict=True):
        close(vectors(answer), embedder.encode_chunks(" ".join(chunks), chunks=chunks, task="separation").vectors)


def test_many_clients_at_once_each_get_their_own(server, embedder: Embedder) -> None:
    texts = [f"{text} {number}" for number in range(64 // len(TEXTS)) for text in TEXTS]

    async def together() -> list[httpx.Response]:
        tasks = [task.name for task in TASKS]
        calls = (
            server._client.post("/v1/embeddings", json={"input": text, "task": tasks[i % 5]})
            for i, text in enumerate(texts)
        )
        return list(await asyncio.gather(*calls))

    found = np.concatenate([vectors(answer) for answer in server.run(together())])
    close(found, embedder.encode(texts, task=[TASKS[i % 5].name for i in range(len(texts))]))


def test_an_empty_list(server) -> None:
    answer = server.post("/v1/embeddings", {"input": []})
    assert answer.json()["data"] == [] and answer.status_code == 200


def test_half_of_a_surrogate_pair_is_text(server, embedder: Embedder) -> None:
    answer = server.post("/v1/embeddings", content=b'{"input": "fox \\ud83d"}')
    close(vectors(answer), embedder.encode(["fox \ufffd"]))


@pytest.mark.parametrize(
    "given",
    [None, 3, True, [None], [1.5], [True, False], [["a"]], [[1.5]], {"image": "x"}, [{"text": 3}], {}, [{}], [[]]],
    ids=json.dumps,
)
def test_what_is_no_input_is_named(server, given: Any) -> None:
    answer = server.post("/v1/embeddings", {"input": given})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input"


def test_the_model_must_be_ours(server) -> None:
    for name in ("tiny", "jina-embeddings-v3", None, "default/not-specified"):
        assert server.post("/v1/embeddings", {"input": "a", "model": name}).json()["model"] == "tiny"
    answer = server.post("/v1/embeddings", {"input": "a", "model": "text-embedding-3-small"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_infinitys_form(server, embedder: Embedder) -> None:
    answer = server.post(
        "/embeddings", {"input": TEXTS, "dimensions": 0, "modality": "text", "encoding_format": "float"}
    )
    close(vectors(answer), embedder.encode(TEXTS))
    assert answer.json()["id"].startswith("infinity-") and answer.json()["created"] > 0
