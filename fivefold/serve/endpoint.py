"""`Endpoint`: one row of the table that routes, /openapi.json, keys and metrics are all made from."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fivefold.serve import wire
from fivefold.serve.failures import RequestError
from fivefold.serve.gate import Note
from fivefold.serve.service import Embedded, Service

M = TypeVar("M", bound=BaseModel)
Handler = Callable[[Service, Any, Note], Coroutine[Any, Any, bytes]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A POST route of the model: its paths, what it takes, what it gives, and the function between."""

    paths: tuple[str, ...]
    request: type[BaseModel]
    response: Any
    handler: Handler
    summary: str


def parsed(model: type[M], body: bytes) -> M:
    """A body as a checked request; raises RequestError that names the field."""
    try:
        value = wire.loads(body)
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(f"the body must be a JSON object, got {type(value).__name__}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # include_input=False: a message must not repeat what was sent
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = [str(part) for part in first["loc"]]
        message = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"{'.'.join(where) or 'body'}: {message}", where[0] if where else None) from None


def note_cost(note: Note, found: Embedded) -> None:
    """Write down what an answer cost."""
    note.inputs, note.tokens = found.inputs, found.tokens
    note.queue_ms, note.compute_ms = found.queue_seconds * 1000, found.compute_seconds * 1000
