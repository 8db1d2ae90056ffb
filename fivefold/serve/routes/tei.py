"""The routes of Text Embeddings Inference. `prompt_name` is the name of a task: adapter and prompt."""

from __future__ import annotations

from fivefold.serve import wire
from fivefold.serve.endpoint import Endpoint, note_cost
from fivefold.serve.gate import Note
from fivefold.serve.intake import Input
from fivefold.serve.schema import EmbedRequest, SimilarityParameters, SimilarityRequest, Token, TokenizeRequest
from fivefold.serve.service import Service
from fivefold.tokenizer import Tokens
from fivefold.vectors import FloatArray

TOKEN_NUMBERS = 16
"""What one token of /tokenize costs, in the numbers that an answer's size is counted in."""
SIMILARITY_TASK = "text-matching"
"""Adapter of /similarity where the request names none."""


async def embed(service: Service, body: EmbedRequest, note: Note) -> bytes:
    """POST /embed and POST /: a list of vectors, also for one text."""
    found = await service.embed(
        service.with_tasks(body.inputs, body.prompt_name),
        dimensions=body.dimensions,
        normalized=body.normalize is not False,
        truncate=_truncate(service, body.truncate),
        from_left=body.from_left,
    )
    note_cost(note, found)
    return await service.offload(found.vectors.size, _lists, found.vectors)


async def embed_all(service: Service, body: EmbedRequest, note: Note) -> bytes:
    """POST /embed_all: the hidden state of every token."""
    inputs = service.with_tasks(body.inputs, body.prompt_name)
    found = await service.embed_tokens(inputs, truncate=_truncate(service, body.truncate), from_left=body.from_left)
    note.inputs, note.tokens = len(inputs), sum(map(len, found))
    return await service.offload(sum(rows.size for rows in found), _nested, found)


async def similarity(service: Service, body: SimilarityRequest, note: Note) -> bytes:
    """POST /similarity: the cosine of one text with each of the others."""
    options = body.parameters or SimilarityParameters()
    texts = [body.inputs.source_sentence, *body.inputs.sentences]
    found = await service.embed(
        service.with_tasks([Input(text) for text in texts], options.prompt_name or SIMILARITY_TASK),
        truncate=_truncate(service, options.truncate),
        from_left=(options.truncation_direction or "right").lower() == "left",
    )
    note_cost(note, found)
    return wire.numbers(found.vectors[1:] @ found.vectors[0])


async def tokenize(service: Service, body: TokenizeRequest, note: Note) -> bytes:
    """POST /tokenize: each text's tokens with their characters."""
    inputs = service.with_tasks(body.inputs, body.prompt_name)
    found = await service.intake.tokens(inputs)
    note.inputs, note.tokens = len(inputs), sum(len(tokens.input_ids) for _, tokens in found)
    specials = body.add_special_tokens is not False
    return await service.offload(
        note.tokens * TOKEN_NUMBERS,
        lambda: wire.dumps([_tokens(service, text, tokens, specials) for text, tokens in found]),
    )


def _tokens(service: Service, text: str, tokens: Tokens, specials: bool) -> list[dict[str, object]]:
    """The tokens of one text; those of the template are special, those of the prompt stand for no character."""
    rust = service.intake.tokenizer.rust
    before, after = service.intake.template
    last = len(tokens.input_ids) - after
    found: list[dict[str, object]] = []
    for place, (token, (start, stop)) in enumerate(
        zip(tokens.input_ids.tolist(), tokens.offsets.tolist(), strict=True)
    ):
        special = place < before or place >= last
        if special and not specials:
            continue
        inside = start >= 0
        shown = text[start:stop] if inside else rust.id_to_token(token)
        span = {"start": start, "stop": stop} if inside else {"start": None, "stop": None}
        found.append({"id": token, "text": shown, "special": special, **span})
    return found


def _truncate(service: Service, asked: bool | None) -> bool:
    return service.auto_truncate if asked is None else asked


def _lists(vectors: FloatArray) -> bytes:
    return wire.array(wire.values(vectors, "float"))


def _nested(found: list[FloatArray]) -> bytes:
    return wire.array(_lists(rows) for rows in found)


ENDPOINTS = (
    Endpoint(("/embed", "/"), EmbedRequest, list[list[float]], embed, "Vectors, as TEI"),
    Endpoint(("/embed_all",), EmbedRequest, list[list[list[float]]], embed_all, "A vector for every token"),
    Endpoint(("/similarity",), SimilarityRequest, list[float], similarity, "Cosine of one text with others"),
    Endpoint(("/tokenize",), TokenizeRequest, list[list[Token]], tokenize, "Tokens with their characters"),
)
