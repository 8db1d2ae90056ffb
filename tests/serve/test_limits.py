"""Limits: each refuses what would refuse everything, is shown, and is itself the last thing that is let in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold import Embedder
from fivefold.errors import InputError
from fivefold.serve.limits import Limits

NAMES = [field.name for field in fields(Limits)]
FOX = "fox dog river"
ONES = dict.fromkeys(NAMES, 1)


@given(wrong=st.sampled_from(NAMES), value=st.integers(max_value=0))
def test_a_limit_of_nothing_is_refused_by_its_name(wrong: str, value: int) -> None:
    Limits(**ONES)
    with pytest.raises(InputError, match=f"^{wrong} must be at least 1, got {value}$"):
        Limits(**{**ONES, wrong: value})


def test_info_shows_every_limit(serve: Callable[..., Any]) -> None:
    values = {name: 100 + number for number, name in enumerate(NAMES)} | {"max_input_length": 60}
    assert serve(**values).get("/info").json().items() >= values.items()


def test_a_body_may_have_the_limits_bytes_and_no_more(serve: Callable[..., Any]) -> None:
    """Whether it says so before or only shows."""
    body = json.dumps({"input": "a fox"}).encode()
    server = serve(max_body_bytes=len(body))

    async def parts(content: bytes) -> Any:
        for byte in content:
            yield bytes([byte])

    for content, status in ((body, 200), (body + b" ", 413)):
        assert server.post("/v1/embeddings", content=content).status_code == status
        assert server.run(server._client.post("/v1/embeddings", content=parts(content))).status_code == status
    assert server.state.body_bytes == 0


@pytest.mark.parametrize("late", [False, True])
def test_a_text_may_have_the_limits_tokens_and_no_more(
    serve: Callable[..., Any], embedder: Embedder, late: bool
) -> None:
    """The prompt counts, as the model reads it."""
    text = "fox dog river bank over the lazy dog"
    length = len(embedder.tokenizer.tokens(text, "retrieval.query").input_ids)
    body = {"input": text, "task": "retrieval.query", "late_chunking": late}
    assert serve(max_input_length=length).post("/v1/embeddings", body).status_code == 200
    refused = serve(max_input_length=length - 1).post("/v1/embeddings", body)
    assert refused.status_code == 400 and f"{length} tokens" in refused.json()["detail"]
    assert f"limit is {length - 1}" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "read"),
    [
        ("/v1/embeddings", {"input": [FOX] * 3}, [(FOX, None)] * 3),
        ("/v1/embeddings", {"input": [FOX] * 3, "late_chunking": True}, [(f"{FOX} {FOX} {FOX}", None)]),
        ("/tokenize", {"inputs": [FOX] * 3}, [(FOX, None)] * 3),
        ("/rerank", {"query": FOX, "documents": [FOX]}, [(FOX, "retrieval.query"), (FOX, "retrieval.passage")]),
    ],
)
def test_a_request_may_have_the_limits_tokens_and_no_more(
    serve: Callable[..., Any], embedder: Embedder, path: str, body: Any, read: list[tuple[str, str | None]]
) -> None:
    total = sum(len(embedder.tokenizer.tokens(text, task).input_ids) for text, task in read)
    assert serve(max_request_tokens=total).post(path, body).status_code == 200
    refused = serve(max_request_tokens=total - 1).post(path, body)
    assert refused.status_code == 413
    assert f"more than {total - 1} tokens" in refused.json()["detail"] and "in parts" in refused.json()["detail"]


def test_labels_and_documents_are_texts_of_the_request(serve: Callable[..., Any]) -> None:
    """They are embedded like the others."""
    server = serve(max_client_batch_size=3)
    for count, status in ((2, 200), (3, 413)):
        for path, body in (
            ("/v1/rerank", {"query": "a", "documents": ["b"] * count}),
            ("/v1/classify", {"input": "a", "labels": ["b"] * count}),
            ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"] * count}}),
            ("/embed_all", {"inputs": ["a"] * (count + 1)}),
        ):
            answer = server.post(path, body)
            assert answer.status_code == status, path
            if status == 413:
                assert "4 inputs in one request, the limit is 3; send them in parts" in answer.json()["detail"]
