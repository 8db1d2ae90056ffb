"""Jina's and OpenAI's embeddings, and the form Infinity has of them."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fivefold.serve import wire
from fivefold.serve.endpoint import Endpoint, note_cost
from fivefold.serve.gate import Note
from fivefold.serve.schema import EmbeddingsRequest, EmbeddingsResponse
from fivefold.serve.service import Embedded, Service


async def embeddings(service: Service, body: EmbeddingsRequest, note: Note) -> bytes:
    """POST /v1/embeddings."""
    return await _answer(service, body, note, {})


async def infinity_embeddings(service: Service, body: EmbeddingsRequest, note: Note) -> bytes:
    """POST /embeddings: its generated client sends `dimensions: 0` for all of them."""
    asked = body.model_copy(update={"dimensions": body.dimensions or None})
    return await _answer(service, asked, note, {"id": f"infinity-{uuid.uuid4()}", "created": int(time.time())})


async def _answer(service: Service, body: EmbeddingsRequest, note: Note, extra: dict[str, Any]) -> bytes:
    service.names.check(body.model)
    encoding = body.encoding
    wire.check_encodings([encoding] if isinstance(encoding, str) else encoding, "embedding_type")
    inputs = service.with_tasks(body.input, body.task)
    normalized = body.normalized is not False
    if body.late_chunking:
        found = await service.embed_late(
            inputs, windows=bool(body.late_chunking_windows), dimensions=body.dimensions, normalized=normalized
        )
    else:
        found = await service.embed(
            inputs, dimensions=body.dimensions, normalized=normalized, truncate=bool(body.truncate)
        )
    note_cost(note, found)
    head = {
        "model": service.names.served,
        "object": "list",
        **extra,
        "usage": {"total_tokens": found.tokens, "prompt_tokens": found.tokens},
    }
    return await service.offload(found.vectors.size, _written, head, found, encoding)


def _written(head: dict[str, Any], found: Embedded, encoding: str | list[str]) -> bytes:
    """The whole answer as JSON: `head` and then `data`."""
    rows = wire.values(found.vectors, encoding)
    data = (b'{"object":"embedding","index":%d,"embedding":%b}' % (i, row) for i, row in enumerate(rows))
    return wire.dumps(head)[:-1] + b',"data":' + wire.array(data) + b"}"


ENDPOINTS = (
    Endpoint(("/v1/embeddings",), EmbeddingsRequest, EmbeddingsResponse, embeddings, "Vectors, as Jina and OpenAI"),
    Endpoint(("/embeddings",), EmbeddingsRequest, EmbeddingsResponse, infinity_embeddings, "Vectors, as Infinity"),
)
