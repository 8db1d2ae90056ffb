"""What people do with the vectors: classify by labels, put documents in order, cut a text into chunks.

All are made of the embeddings alone. Texts of different tasks go through the model together, in one request to the queue.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from fivefold.serve import wire
from fivefold.serve.endpoint import Endpoint, note_cost
from fivefold.serve.gate import Note
from fivefold.serve.intake import Input
from fivefold.serve.schema import ClassifyRequest, RerankRequest, SegmentRequest
from fivefold.serve.service import Embedded, Service
from fivefold.vectors import FloatArray

RERANK_METHOD = "cosine of retrieval.query and retrieval.passage embeddings; not a cross-encoder"
CHUNK_TOKENS = 256
SCORE_NUMBERS = 8
"""What the score of one label costs, in the numbers that an answer's size is counted in."""


async def classify(service: Service, body: ClassifyRequest, note: Note) -> bytes:
    """POST /v1/classify: the softmax of an input's cosines with the labels, both read with the classification adapter."""
    service.names.check(body.model)
    labels = [label for group in body.groups.values() for label in group]
    texts = service.with_tasks([*body.input, *map(Input, labels)], "classification")
    found = await service.embed(texts, truncate=bool(body.truncate))
    note_cost(note, found)
    return await service.offload(len(body.input) * len(labels) * SCORE_NUMBERS, _classified, service, body, found)


def _classified(service: Service, body: ClassifyRequest, found: Embedded) -> bytes:
    """The whole answer as JSON."""
    count = len(body.input)
    cosines = found.vectors[:count] @ found.vectors[count:].T  # [inputs, labels]
    stops = list(accumulate(map(len, body.groups.values())))
    groups = list(zip(body.groups.items(), np.split(cosines, stops[:-1], axis=1), strict=True))
    data = []
    for index in range(count):
        by_group = {name: _prediction(names, part[index]) for (name, names), part in groups}
        told = by_group[""] if isinstance(body.labels, list) else _by_group(by_group)
        data.append({"object": "classification", "index": index, **told})
    usage = {"total_tokens": found.tokens}
    return wire.dumps({"model": service.names.served, "usage": usage, "data": data})


def _prediction(labels: list[str], cosines: FloatArray) -> dict[str, Any]:
    """The best label and the score of each, in the order of the labels; scores sum to 1."""
    powers = np.exp((cosines - cosines.max()).astype(np.float64))
    scores = (powers / powers.sum()).tolist()
    best = int(np.argmax(cosines))
    each = [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
    return {"prediction": labels[best], "score": scores[best], "predictions": each}


def _by_group(groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{group: {field: value}} -> {field: {group: value}}, as Jina has it."""
    return {
        field: {name: group[field] for name, group in groups.items()}
        for field in ("prediction", "score", "predictions")
    }


async def rerank(service: Service, body: RerankRequest, note: Note) -> bytes:
    """POST /v1/rerank: documents by their cosine with the query."""
    service.names.check(body.model)
    documents = service.with_tasks([Input(text) for text in body.documents], "retrieval.passage")
    query = service.with_tasks([Input(body.query)], "retrieval.query")
    found = await service.embed([*query, *documents], truncate=bool(body.truncate))
    note_cost(note, found)
    scores = found.vectors[1:] @ found.vectors[0]
    best = np.argsort(-scores, kind="stable")[: body.top_n].tolist()
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": float(scores[i])} for i in best]
    if body.return_documents is not False:
        for result in results:
            result["document"] = {"text": body.documents[result["index"]]}
    usage = {"total_tokens": found.tokens, "prompt_tokens": found.tokens}
    answer = {"model": service.names.served, "object": "list", "method": RERANK_METHOD, "usage": usage}
    return wire.dumps({**answer, "results": results})


async def segment(service: Service, body: SegmentRequest, note: Note) -> bytes:
    """POST /v1/segment: chunks of a text with their characters, counted in tokens of this model."""
    chunk_tokens = body.chunk_tokens or min(CHUNK_TOKENS, service.limits.max_input_length)
    spans = await service.intake.split(body.content, chunk_tokens)
    answer: dict[str, Any] = {
        "tokenizer": service.names.served,
        "usage": {"tokens": 0},
        "num_chunks": len(spans),
        "chunk_positions": [list(span) for span in spans],
    }
    if body.return_chunks is not False:
        answer["chunks"] = [body.content[start:stop] for start, stop in spans]
    note.inputs = 1
    return wire.dumps(answer)


ENDPOINTS = (
    Endpoint(("/v1/classify",), ClassifyRequest, dict[str, Any], classify, "Zero-shot classification by labels"),
    Endpoint(
        ("/v1/rerank", "/rerank"), RerankRequest, dict[str, Any], rerank, "Documents by their cosine with a query"
    ),
    Endpoint(("/v1/segment",), SegmentRequest, dict[str, Any], segment, "Chunks of a text"),
)
