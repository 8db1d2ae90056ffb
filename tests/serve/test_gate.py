"""The layer around all routes by itself: keys, bodies as they come, who leaves and when, counts that go back to zero."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from fivefold.embedder import Embedder
from fivefold.errors import DimensionError, NonFiniteError
from fivefold.serve.failures import (
    AccessError,
    QueueFullError,
    RouteError,
    SlowBodyError,
    TooLargeError,
    UnavailableError,
    UnknownModelError,
)
from fivefold.serve.gate import BODIES_IN_MEMORY, Busy, ClientLeft, Gate, Keys, State, unless_left
from fivefold.serve.limits import Limits
from fivefold.serve.metrics import REJECTIONS, Metrics
from fivefold.serve.service import Names, Service

LIMIT = 100
GONE: Message = {"type": "http.disconnect"}
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@pytest.fixture(scope="module")
def service(embedder: Embedder) -> Iterator[Service]:
    limits = Limits(64, 256, 4096, max_body_bytes=LIMIT)
    made = Service.start([embedder], names=Names("tiny"), limits=limits, metrics=Metrics())
    yield made
    asyncio.run(made.close())


def part(size: int, more: bool = True) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads its body and says how long it was."""
    size = len((await receive())["body"]) if scope["method"] == "POST" else 0
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


def raising(error: BaseException) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


class Door:
    """A gate and what passes it. A connection says its messages one by one and then nothing more; an error is its loss."""

    def __init__(self, service: Service | None, app: App = answers, *, keys: tuple[str, ...] = ()) -> None:
        self.state = State(Metrics(), Keys(keys), service)
        self.gate = Gate(app, self.state, frozenset({"/live"}))
        self.read = 0

    async def visit(
        self, *messages: Message | Exception, method: str = "POST", path: str = "/embed", **headers: str
    ) -> list[Message]:
        """What was sent to the client."""
        coming, sent = iter(messages), []

        async def receive() -> Message:
            for message in coming:
                self.read += 1
                if isinstance(message, Exception):
                    raise message
                return message
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def send(message: Message) -> None:
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self.gate({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
        return sent

    def status(self, *messages: Message | Exception, **options: str) -> int:
        """The status of one visit."""
        sent = asyncio.run(asyncio.wait_for(self.visit(*messages, **options), 20))
        return int(sent[0]["status"]) if sent else 0

    def value(self, name: str, **labels: str) -> float:
        """A series of the metrics, 0 where there is none."""
        return self.state.metrics.registry.get_sample_value(f"fivefold_{name}", labels) or 0.0

    def is_empty(self) -> bool:
        """Nobody is counted any more."""
        return (self.state.in_flight, self.state.body_bytes, self.value("requests_in_flight")) == (0, 0, 0.0)


# keys


def plain(key: bytes) -> bool:
    """A key as a header may hold it, and as options and files give it: without control characters, and stripped."""
    word = key.decode("utf-8", "surrogateescape")
    return min(key) > 31 and 127 not in key and word.strip() == word


@given(key=st.binary(min_size=1, max_size=6).filter(plain) | st.sampled_from(["voilà".encode(), "успех".encode()]))
def test_any_key_opens_as_the_bytes_that_it_is(key: bytes) -> None:
    """The last byte of a letter may be a space in latin-1, which is how headers are read."""
    keys = Keys(["other", key.decode("utf-8", "surrogateescape")])
    keys.check("Bearer  " + key.decode("latin-1") + " \t")
    with pytest.raises(AccessError):
        keys.check("Bearer " + key.decode("latin-1") + "x")
    with pytest.raises(AccessError, match="Authorization: Bearer KEY"):
        keys.check(key.decode("latin-1").replace(" ", ""))


def test_a_probe_by_head_needs_no_key_and_a_post_to_its_path_does() -> None:
    door = Door(None, keys=("k",))
    assert door.status(method="HEAD", path="/live") == 200
    assert door.status(method="POST", path="/live") == 401
    assert door.status(method="DELETE", path="/live") == 401
    assert door.status(method="HEAD", path="/info") == 401


def test_without_a_key_nothing_of_the_body_is_read(service: Service) -> None:
    door = Door(service, keys=("k",))
    assert door.status(part(5, False)) == 401 and not door.read


# bodies


@pytest.mark.parametrize("announced", ["²", "-1", "+5", "1e3", "5.0", "0x5", "", " ", "5, 5", "nan", "\xbd"])
def test_a_length_that_is_none_is_not_believed(service: Service, announced: str) -> None:
    """What comes is counted, whatever a proxy let through."""
    assert Door(service).status(part(5, False), content_length=announced) == 200
    assert Door(service).status(part(LIMIT + 1, False), content_length=announced) == 413


def test_a_body_announced_as_too_large_is_refused_unread(service: Service) -> None:
    for length in (str(LIMIT + 1), "9" * 5000):
        door = Door(service)
        assert door.status(part(5, False), content_length=length) == 413
        assert not door.read
    assert Door(service).status(part(LIMIT, False), content_length=str(LIMIT)) == 200


@given(
    sizes=st.lists(st.integers(0, LIMIT), max_size=6),
    end=st.sampled_from(["whole", "left", "lost", "failed", "cancelled"]),
)
def test_every_way_out_gives_back_what_was_taken(service: Service, sizes: list[int], end: str) -> None:
    """One request, counted once, under the one status that it had, and nothing of it stays."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert door.state.body_bytes == sum(sizes) and door.state.in_flight == 1
        if end == "failed":
            raise RuntimeError
        if end == "cancelled":
            raise asyncio.CancelledError
        await answers(scope, receive, send)

    door = Door(service, app)
    last = {"left": GONE, "lost": OSError("connection lost")}.get(end, part(0, False))
    large = sum(sizes) > LIMIT
    expected = {"whole": 200, "left": 499, "failed": 500, "lost": 500, "cancelled": 499}[end] if not large else 413
    try:
        asyncio.run(door.visit(*map(part, sizes), last))
    except asyncio.CancelledError:
        assert expected == 499
    assert door.is_empty()
    assert door.value("requests_total", route="unmatched", status=str(expected)) == 1
    assert door.value("clients_left_total") == (end == "left" and not large)


def test_bodies_in_memory_are_counted_together(service: Service) -> None:
    """So many of the largest size; one byte more is told to come back, and is welcome when another has gone."""
    go = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answers(scope, receive, send)

    door = Door(service, waits)

    async def work() -> None:
        held = [asyncio.create_task(door.visit(part(LIMIT, False))) for _ in range(BODIES_IN_MEMORY)]
        while door.state.body_bytes < BODIES_IN_MEMORY * LIMIT:
            await asyncio.sleep(0)
        nothing = asyncio.create_task(door.visit(part(0, False)))
        refused, body = await door.visit(part(1, False))
        assert refused["status"] == 429 and (b"retry-after", b"1") in refused["headers"]
        assert "too many large requests" in json.loads(body["body"])["detail"]
        assert door.value("rejections_total", reason="concurrency") == 1
        held.pop().cancel()
        await asyncio.sleep(0)
        held += [nothing, asyncio.create_task(door.visit(part(LIMIT, False)))]
        await asyncio.sleep(0)
        go.set()
        assert all(sent[0]["status"] == 200 for sent in await asyncio.gather(*held))

    asyncio.run(asyncio.wait_for(work(), 20))
    assert door.is_empty()


def test_a_body_that_is_cancelled_while_it_comes_is_given_back(service: Service) -> None:
    door = Door(service)

    async def work() -> None:
        task = asyncio.create_task(door.visit(part(60)))
        while not door.state.body_bytes:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert door.is_empty()
    assert door.value("requests_total", route="unmatched", status="499") == 1


def test_after_its_body_a_request_hears_the_connection_itself(service: Service) -> None:
    heard: list[Message] = []

    async def listens(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([await receive(), await receive()])
        await answers({"method": "GET"}, receive, send)

    assert Door(service, listens).status(part(3), part(4, False), GONE) == 200
    assert heard == [part(7, False), GONE]


# what comes back


REFUSALS: list[tuple[Exception, str | None]] = [
    (QueueFullError("", 1.0), "queue_full"),
    (Busy("", 1.0), "concurrency"),
    (TooLargeError(""), "too_large"),
    (AccessError(""), "unauthorized"),
    (UnknownModelError(""), "invalid"),
    (DimensionError(""), "invalid"),
    (UnavailableError(""), "unavailable"),
    (SlowBodyError(""), "timeout"),
    (RouteError("", 405), None),
    (NonFiniteError(""), None),
    (RuntimeError(""), None),
]


@pytest.mark.parametrize(("error", "reason"), REFUSALS, ids=lambda value: type(value).__name__)
def test_each_refusal_is_counted_once_under_its_reason(service: Service, error: Exception, reason: str | None) -> None:
    door = Door(service, raising(error))
    assert door.status(part(1, False)) >= 400
    counted = {name: door.value("rejections_total", reason=name) for name in REJECTIONS}
    assert counted == {name: float(name == reason) for name in REJECTIONS}


def test_every_reason_is_one_that_happens() -> None:
    assert {reason for _, reason in REFUSALS if reason} == set(REJECTIONS)


def test_a_failure_after_the_answer_began_is_logged_and_not_answered_again(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A second head in the middle of a body would be read as part of it."""

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half way")

    sent = asyncio.run(Door(service, half).visit(part(1, False), x_request_id="r7"))
    assert [message["type"] for message in sent] == ["http.response.start"]
    (record,) = [r for r in caplog.records if r.exc_info]
    assert "r7" in record.getMessage() and "half way" in str(record.exc_info)


@given(st.binary(max_size=140))
@example(b"x" * 128)
@example(b"x" * 129)
def test_an_id_is_the_callers_or_a_new_one_and_the_same_everywhere(given_id: bytes) -> None:
    """In the headers it must be one word of ASCII, or whoever sends an id could write headers."""
    found, body = asyncio.run(Door(None).visit(x_request_id=given_id.decode("latin-1")))
    told = dict(found["headers"])[b"x-request-id"]
    assert json.loads(body["body"])["request_id"] == told.decode("ascii")
    assert told == given_id if given_id.isascii() and told == given_id else len(told) == 32
    assert 0 < len(told) <= 128 and min(told) >= 32 and max(told) < 127


def test_probes_are_logged_only_where_somebody_asks_for_it_or_they_fail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fivefold.serve")
    door = Door(None, keys=("k",))
    door.status(method="GET", path="/live")
    door.status(method="GET", path="/info")
    assert [(r.levelname, r.facts["status"]) for r in caplog.records] == [("DEBUG", 200), ("INFO", 401)]  # type: ignore[attr-defined]


# work for clients that may leave


class Watched:
    """Work that takes until it is let go, and knows how it ended."""

    def __init__(self) -> None:
        self.go, self.gone, self.ended = asyncio.Event(), asyncio.Event(), ""

    async def work(self) -> str:
        try:
            await self.go.wait()
            self.ended = "done"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        return "answer"

    async def receive(self) -> Message:
        await self.gone.wait()
        return GONE


def watched(scene: Callable[[Watched, asyncio.Task[str]], Coroutine[Any, Any, None]]) -> Watched:
    """A scene with work under way; after it no task is left."""
    made: list[Watched] = []

    async def play() -> None:
        one = Watched()
        made.append(one)
        task = asyncio.create_task(unless_left(Request({"type": "http"}, one.receive), one.work()))
        await asyncio.sleep(0.001)
        await scene(one, task)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())
    return made[0]


def test_work_is_cancelled_when_its_client_leaves() -> None:
    async def scene(one: Watched, task: asyncio.Task[str]) -> None:
        one.gone.set()
        with pytest.raises(ClientLeft):
            await task

    assert watched(scene).ended == "cancelled"


def test_work_is_cancelled_with_the_request_itself() -> None:
    """As uvicorn does at the end of a drain."""

    async def scene(one: Watched, task: asyncio.Task[str]) -> None:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert watched(scene).ended == "cancelled"


def test_who_leaves_when_the_work_is_done_gets_it() -> None:
    async def scene(one: Watched, task: asyncio.Task[str]) -> None:
        one.gone.set()
        one.go.set()
        assert await task == "answer"

    assert watched(scene).ended == "done"


def test_failed_work_is_told_and_nobody_listens_any_longer() -> None:
    async def fails() -> None:
        raise DimensionError("33")

    async def scene(one: Watched, task: asyncio.Task[str]) -> None:
        with pytest.raises(DimensionError, match="33"):
            await unless_left(Request({"type": "http"}, one.receive), fails())
        one.go.set()
        await task

    watched(scene)
