"""What the server refuses and how it says so: the tree, the table from errors to statuses, and the one body.

    FivefoldError
    └── ServeError
        ├── RequestError        the request's form; names the field            (also an InputError)
        │   ├── TooLargeError   more than a limit that no waiting would change
        │   └── UnknownModelError
        ├── AccessError         no key, or one that is not ours
        ├── SlowBodyError       the body did not arrive in time
        ├── RouteError          no such path, or not with this method
        ├── QueueFullError      come back later: more work than can be done soon
        └── UnavailableError    loading, draining, or the model is down

Every client finds what it looks for in the same body: Jina's a string in `detail`, OpenAI's and Vercel's an `error` object,
TEI's an `error_type`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from fivefold.errors import (
    ChunkError,
    DimensionError,
    FivefoldError,
    InputError,
    NonFiniteError,
    TextTooLongError,
    UnknownTaskError,
)

MAX_MESSAGE = 1000
"""Characters of a message: it may quote what the caller sent, and that may be a book."""


class ServeError(FivefoldError):
    """The server does not answer this request."""


class RequestError(ServeError, InputError):
    """The request cannot be served as it is; `param` is the field to look at."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class TooLargeError(RequestError):
    """A body, a list or a text over a limit."""


class UnknownModelError(RequestError):
    """The named model is not served here."""


class AccessError(ServeError):
    """The request needs a key that it does not have."""


class SlowBodyError(ServeError):
    """The body did not arrive in time."""


class RouteError(ServeError):
    """There is nothing here for this path and method."""

    def __init__(self, message: str, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class QueueFullError(ServeError):
    """More work waits than the server will accept; `retry_after` seconds from now there should be room."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(ServeError):
    """The server is loading, draining, or its model does not work."""

    retry_after = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How one kind of error is told: HTTP status, Jina's code, OpenAI's type and code, TEI's type."""

    status: int
    code: str
    type: str
    openai_code: str | None
    tei_type: str


_BAD = "invalid_request_error"
INTERNAL = Answer(500, "INTERNAL_ERROR", "server_error", "internal_error", "Backend")
# The nearest class of an error's line of ancestors decides.
ANSWERS: dict[type[Exception], Answer] = {
    InputError: Answer(400, "INPUT_INVALID", _BAD, None, "Validation"),
    UnknownTaskError: Answer(400, "INPUT_INVALID_TASK", _BAD, None, "Validation"),
    DimensionError: Answer(400, "INPUT_INVALID_DIMENSIONS", _BAD, None, "Validation"),
    TextTooLongError: Answer(400, "INPUT_TOKEN_LIMIT_EXCEEDED", _BAD, "context_length_exceeded", "Validation"),
    ChunkError: Answer(400, "INPUT_INVALID_CHUNK", _BAD, None, "Validation"),
    TooLargeError: Answer(413, "INPUT_TOO_LARGE", _BAD, "request_too_large", "Validation"),
    UnknownModelError: Answer(404, "INPUT_MODEL_NOT_FOUND", _BAD, "model_not_found", "Validation"),
    AccessError: Answer(401, "AUTH_INVALID_API_KEY", "authentication_error", "invalid_api_key", "Unauthorized"),
    SlowBodyError: Answer(408, "REQUEST_TIMEOUT", "timeout_error", "request_timeout", "Validation"),
    RouteError: Answer(404, "RESOURCE_NOT_FOUND", _BAD, "not_found", "Validation"),
    QueueFullError: Answer(429, "RATE_TOKEN_LIMIT_EXCEEDED", "rate_limit_error", "rate_limit_exceeded", "Overloaded"),
    UnavailableError: Answer(503, "SERVICE_UNAVAILABLE", "server_error", "service_unavailable", "Unhealthy"),
    NonFiniteError: Answer(500, "MODEL_NON_FINITE", "server_error", "non_finite", "Backend"),
}


def answer(error: BaseException) -> Answer:
    """The row of the table for an error; what is not ours is an internal error."""
    return next((ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS), INTERNAL)


def status(error: BaseException) -> int:
    """The HTTP status of an error."""
    return error.status if isinstance(error, RouteError) else answer(error).status


def body(error: BaseException, request_id: str) -> dict[str, object]:
    """The JSON body of an error. What is not meant for callers stays in the log, under the same request id."""
    row = answer(error)
    told = str(error) if isinstance(error, FivefoldError) else "the server failed; its log says why"
    message = told if len(told) <= MAX_MESSAGE else told[:MAX_MESSAGE] + "..."
    return {
        "detail": message,
        "code": row.code,
        "request_id": request_id,
        "error_type": row.tei_type,
        "error": {
            "message": message,
            "type": row.type,
            "param": getattr(error, "param", None),
            "code": row.openai_code,
        },
    }


def headers(error: BaseException) -> dict[str, str]:
    """Headers that go with an error: when to come back, how to sign in, what is allowed."""
    if isinstance(error, QueueFullError | UnavailableError):
        return {"retry-after": str(max(1, ceil(error.retry_after)))}
    if isinstance(error, AccessError):
        return {"www-authenticate": "Bearer"}
    return error.headers if isinstance(error, RouteError) else {}
