"""The routes of Text Embeddings Inference, against the embedder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fivefold import Embedder
from fivefold.packing import pack
from fivefold.vectors import normalize
from tests import toy

TEXTS = ["a brown fox", "der Hund", "el río"]
LONG = "fox dog river " * 60


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a, dtype=np.float32), np.asarray(b), atol=2e-6)


@pytest.mark.parametrize("path", ["/", "/embed"])
def test_embed(server, embedder: Embedder, path: str) -> None:
    close(server.post(path, {"inputs": TEXTS}).json(), embedder.encode(TEXTS))
    close(server.post(path, {"inputs": TEXTS[0], "truncate": None}).json(), embedder.encode(TEXTS[:1]))
    body = {"inputs": TEXTS, "prompt_name": "separation", "dimensions": 8, "normalize": True}
    close(server.post(path, body).json(), embedder.encode(TEXTS, task="separation", truncate_dim=8))
    raw = server.post(path, {"inputs": TEXTS, "normalize": False, "parameters": {}, "options": {}}).json()
    close(raw, embedder.encode(TEXTS, normalize=False))


@pytest.mark.parametrize(
    ("name", "task"),
    [("query", "retrieval.query"), ("document", "retrieval.passage"), ("retrieval.passage", "retrieval.passage")],
)
def test_prompt_names(server, embedder: Embedder, name: str, task: str) -> None:
    close(server.post("/embed", {"inputs": "fox", "prompt_name": name}).json(), embedder.encode(["fox"], task=task))


def test_unknown_prompt_name(server) -> None:
    answer = server.post("/embed", {"inputs": "fox", "prompt_name": "web"})
    assert answer.status_code == 400 and answer.json()["error_type"] == "Validation"


def test_truncation(server, serve, embedder: Embedder) -> None:
    assert server.post("/embed", {"inputs": LONG}).status_code == 400
    ids = embedder.tokenizer.tokens(LONG, None).input_ids
    right = server.post("/embed", {"inputs": LONG, "truncate": True}).json()
    left = server.post("/embed", {"inputs": LONG, "truncate": True, "truncation_direction": "Left"}).json()
    kept = toy.sequence([ids[0], *ids[-63:]])
    states = embedder.backend.hidden_states(pack([kept])).numpy()
    close(left, normalize(states.mean(axis=0, keepdims=True)))
    assert left != right
    automatic = serve(auto_truncate=True)
    assert automatic.post("/embed", {"inputs": LONG}).json() == right
    assert automatic.post("/embed", {"inputs": LONG, "truncate": False}).status_code == 400
    assert automatic.post("/v1/embeddings", {"input": LONG}).status_code == 400
    assert automatic.get("/info").json()["auto_truncate"] is True


def test_embed_all(server, embedder: Embedder) -> None:
    found = server.post("/embed_all", {"inputs": TEXTS}).json()
    prompted = server.post("/embed_all", {"inputs": TEXTS[0], "prompt_name": "retrieval.query"}).json()
    expected = embedder.encode_tokens(TEXTS, normalize=False)
    expected.append(embedder.encode_tokens(TEXTS[0], task="retrieval.query", normalize=False))
    for rows, e in zip([*found, *prompted], expected, strict=True):
        close(rows, e.vectors)
    assert server.post("/embed_all", {"inputs": []}).json() == []
    assert server.post("/embed_all", {"inputs": ["fox dog river"] * 30}).status_code == 413


def test_similarity(server, embedder: Embedder) -> None:
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}}
    vectors = np.asarray(embedder.encode(TEXTS, task="text-matching"))
    close(server.post("/similarity", body).json(), vectors[1:] @ vectors[0])
    body["parameters"] = {"prompt_name": "separation"}  # type: ignore[dict-item]
    vectors = np.asarray(embedder.encode(TEXTS, task="separation"))
    close(server.post("/similarity", body).json(), vectors[1:] @ vectors[0])
    assert server.post("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}).json() == []
    assert server.post("/similarity", {"inputs": "a"}).status_code == 400


def test_tokenize(server, embedder: Embedder) -> None:
    text = "the brown fox"
    (tokens,) = server.post("/tokenize", {"inputs": text}).json()
    assert [t["id"] for t in tokens] == embedder.tokenizer.tokens(text, None).input_ids.tolist()
    assert tokens[0] == {"id": 0, "text": "<s>", "special": True, "start": None, "stop": None}
    inside = [t for t in tokens if not t["special"]]
    assert all(text[t["start"] : t["stop"]] == t["text"] for t in inside)
    (bare,) = server.post("/tokenize", {"inputs": [text], "add_special_tokens": False}).json()
    assert bare == inside
    (prompted,) = server.post("/tokenize", {"inputs": text, "prompt_name": "retrieval.query"}).json()
    assert len(prompted) > len(tokens) and prompted[1]["start"] is None and not prompted[1]["special"]


def test_the_ids_of_tokenize_embed_as_their_text(server, embedder: Embedder) -> None:
    (tokens,) = server.post("/tokenize", {"inputs": TEXTS[0], "add_special_tokens": False}).json()
    ids = [t["id"] for t in tokens]
    close(server.post("/embed", {"inputs": ids}).json(), embedder.encode(TEXTS[:1]))
    close(server.post("/embed", {"inputs": [ids, ids]}).json(), embedder.encode([TEXTS[0]] * 2))


def test_info(server) -> None:
    info = server.get("/info").json()
    assert info["served_model_name"] == "tiny" and info["model_dtype"] == "float32"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["max_client_batch_size"], info["max_batch_tokens"]) == (64, 2048, 256)
    assert info["tasks"]["retrieval.query"].startswith("Represent")
