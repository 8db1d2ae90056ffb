"""What every request passes on its way in and out: its id, its key, its size, its place, its line in the log.

An ASGI layer around all routes. Whatever goes wrong inside comes back from here as the one error body (failures.py), so
that no status has another form.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivefold.errors import InputError
from fivefold.serve import failures, wire
from fivefold.serve.failures import (
    AccessError,
    QueueFullError,
    ServeError,
    SlowBodyError,
    TooLargeError,
    UnavailableError,
)
from fivefold.serve.metrics import Metrics
from fivefold.serve.service import Service

R = TypeVar("R")

CLIENT_LEFT = 499
"""Status in log and metrics of a request that nobody waits for any more."""
BODIES_IN_MEMORY = 8
"""Bodies of the largest size that may be in memory together; more are told to come back."""
log = logging.getLogger("fivefold.serve")

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (QueueFullError, "queue_full"),
    (AccessError, "unauthorized"),
    (SlowBodyError, "timeout"),
    (UnavailableError, "unavailable"),
    (TooLargeError, "too_large"),
    (InputError, "invalid"),
)


class ClientLeft(Exception):
    """The client closed the connection before its answer."""


class Busy(QueueFullError):
    """Too many requests at one time."""


class Keys:
    """API keys, kept as digests only; without any, everybody may come in."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest() for key in keys]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._digests)

    def check(self, authorization: str) -> None:
        """Refuse a header that does not hold one of the keys. The time does not tell how near a guess was."""
        if not self._digests:
            return
        scheme, _, key = authorization.partition(" ")
        key = key.strip(" \t")  # no others: the last byte of a letter may be one of latin-1's spaces
        if scheme.lower() != "bearer" or not key:
            raise AccessError("this server needs a key: send the header 'Authorization: Bearer KEY'")
        digest = hashlib.sha256(key.encode("latin-1")).digest()  # the bytes as they came
        if not any([hmac.compare_digest(digest, known) for known in self._digests]):  # a list: compare with all
            raise AccessError("the key in the Authorization header is not one of this server's")


@dataclass(slots=True)
class State:
    """Where the server is in its life."""

    metrics: Metrics
    keys: Keys
    service: Service | None = None
    draining: bool = False
    failure: Exception | None = None
    on_failure: Callable[[], None] = lambda: None
    in_flight: int = 0
    body_bytes: int = 0

    def serving(self) -> Service:
        """The service, or why there is none now."""
        if self.draining:
            raise UnavailableError("the server is shutting down; send the request to another one")
        if self.failure is not None:
            raise UnavailableError("the model could not be loaded; the server's log says why")
        if self.service is None:
            raise UnavailableError("the model is being loaded; try again soon")
        return self.service

    def ready(self) -> Service:
        """`serving`, and the model answers."""
        service = self.serving()
        if not service.scheduler.healthy:
            raise UnavailableError("the model fails on every input; the server's log says why")
        return service


@dataclass(slots=True)
class Note:
    """What the log says of a request beside its route and status."""

    inputs: int = 0
    tokens: int = 0
    queue_ms: float = 0.0
    compute_ms: float = 0.0


class Gate:
    """The layer around all routes."""

    def __init__(self, app: ASGIApp, state: State, public: frozenset[str]) -> None:
        self.app, self.state, self.public = app, state, public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(scope, receive, send, self.state)
        self.state.in_flight += 1
        self.state.metrics.in_flight.inc()
        try:
            await self._inside(scope, visit)
        except ClientLeft:
            visit.status = CLIENT_LEFT
            self.state.metrics.left.inc()
        except asyncio.CancelledError:
            visit.status = CLIENT_LEFT
            raise
        except Exception as error:
            await visit.fail(error)
        finally:
            self.state.body_bytes -= visit.size
            self.state.in_flight -= 1
            self.state.metrics.in_flight.dec()
            visit.write_down()

    async def _inside(self, scope: Scope, visit: Visit) -> None:
        if not (scope["method"] in ("GET", "HEAD") and scope["path"] in self.public):
            self.state.keys.check(visit.header(b"authorization"))
        if scope["method"] == "POST":
            service = self.state.serving()
            if self.state.in_flight > service.limits.max_concurrent_requests:
                raise Busy(f"{self.state.in_flight} requests at one time are too many; try again soon", 1.0)
            await visit.read(service.limits.max_body_bytes, service.limits.body_seconds)
        await self.app(scope, visit.receive, visit.send)


class Visit:
    """One request as it passes: its body, its status, its time."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, state: State) -> None:
        self._scope, self._receive, self._send, self._state = scope, receive, send, state
        self._began = time.perf_counter()
        self._body: bytes | None = None
        self.size = 0
        self.status = 0
        self.id = _request_id(self.header(b"x-request-id"))
        self.note = scope["fivefold.note"] = Note()

    def header(self, name: bytes) -> str:
        """A header's value, or ''."""
        return next((v.decode("latin-1") for k, v in self._scope["headers"] if k == name), "")

    async def read(self, limit: int, seconds: float) -> None:
        """Read the whole body, at most `limit` bytes within `seconds`."""
        announced = self.header(b"content-length")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise TooLargeError(f"the body has {announced[:20]} bytes, the limit is {limit}; send it in parts")
        try:
            self._body = await asyncio.wait_for(self._whole(limit), seconds)
        except asyncio.TimeoutError:
            raise SlowBodyError(f"the body did not arrive within {seconds} s") from None

    async def _whole(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            self._reserve(size, limit)
        return b"".join(parts)

    def _reserve(self, size: int, limit: int) -> None:
        """Count what has come; refuse it when it, or all bodies together, are too large."""
        if size > limit:
            raise TooLargeError(f"the body has more than {limit} bytes; send it in parts")
        grown = max(size - self.size, 0)
        if self._state.body_bytes + grown > BODIES_IN_MEMORY * limit:
            raise Busy("too many large requests at one time; try again soon", 1.0)
        self._state.body_bytes += grown
        self.size += grown

    async def receive(self) -> Message:
        """The body, once; after it whatever the connection says, which is that the client left."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Send with the request's id in the headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self.id.encode("ascii"))]
        await self._send(message)

    async def fail(self, error: Exception) -> None:
        """Answer with an error; what is not ours is logged with its trace."""
        if not isinstance(error, ServeError | InputError):
            log.error("request %s failed", self.id, exc_info=error)
        if self.status:
            return  # part of the answer is out: the connection ends here
        for kind, reason in _REASONS:
            if isinstance(error, kind):
                self._state.metrics.rejections.labels("concurrency" if isinstance(error, Busy) else reason).inc()
                break
        headers = failures.headers(error)
        if self._state.draining:
            headers["connection"] = "close"
        content = wire.dumps(failures.body(error, self.id))
        response = Response(content, failures.status(error), headers, "application/json")
        await response(self._scope, self.receive, self.send)

    def write_down(self) -> None:
        """Metrics and the line of the log: numbers and names, never what was sent."""
        seconds = time.perf_counter() - self._began
        route = self._scope.get("fivefold.route", "unmatched")
        self._state.metrics.requests.labels(route, str(self.status)).inc()
        self._state.metrics.seconds.labels(route).observe(seconds)
        facts = {"request_id": self.id, "method": self._scope["method"], "route": route, "status": self.status}
        noted = {key: round(value, 2) for key, value in asdict(self.note).items()}
        asked_often = self.status == 200 and self._scope["method"] == "GET"  # probes and Prometheus
        log.log(
            logging.DEBUG if asked_often else logging.INFO,
            "request",
            extra={"facts": {**facts, **noted, "total_ms": round(seconds * 1000, 2)}},
        )


async def unless_left(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """The result of `work`; when the client leaves first, the work is cancelled and `ClientLeft` raised."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeft
    finally:
        task.cancel()
        gone.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _request_id(given: str) -> str:
    """The caller's id if it is a plain short word, else a new one."""
    plain = given.isascii() and given.isprintable() and 0 < len(given) <= 128
    return given if plain else uuid.uuid4().hex
