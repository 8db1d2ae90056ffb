"""One connection, on a real socket: for how long it may be silent, and when silence is no fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from fivefold.serve import connection as module
from fivefold.serve.connection import Connection

HEAD_SECONDS = 0.2
LONGER = 0.45
"""So long that a clock which ran has struck, also on a busy machine."""
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
END = b"ok"


class Line:
    """A client and the server's end of its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, served: Connection) -> None:
        self.reader, self.writer, self.served = reader, writer, served

    async def ask(self, request: bytes = GET) -> bytes:
        """A request and all of its answer."""
        self.writer.write(request)
        return await asyncio.wait_for(self.reader.readuntil(END), 10)

    @property
    def over(self) -> bool:
        """Whether the server has closed, in peace or, where it had not read all, with a reset."""
        return self.reader.at_eof() or self.writer.is_closing()

    async def closed(self) -> bytes:
        """What still comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 10)


def play(scene: Callable[[Callable[[], Awaitable[Line]]], Awaitable[None]], *, seconds: float = 0.0) -> None:
    """A scene with a server whose answers take so long; what fails in a callback of the loop fails the test."""
    failures: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(seconds)
        status = 200 if scope["method"] == "GET" else 401
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": END})

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        config = Config(app, log_config=None, access_log=False, ws="none", timeout_keep_alive=60)
        config.load()
        made: list[Connection] = []

        def connect() -> Connection:
            made.append(Connection(HEAD_SECONDS, config=config, server_state=ServerState(), app_state={}))
            return made[-1]

        server = await loop.create_server(connect, "127.0.0.1", 0)
        writers: list[asyncio.StreamWriter] = []

        async def call() -> Line:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writers.append(writer)
            while len(made) < len(writers):
                await asyncio.sleep(0)
            return Line(reader, writer, made[-1])

        try:
            await scene(call)
        finally:
            for writer in writers:
                writer.close()
            server.close()
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(work(), 30))
    assert not failures


def test_between_two_requests_there_is_no_hurry_but_in_the_second_ones_head_there_is() -> None:
    async def scene(call: Callable[[], Awaitable[Line]]) -> None:
        line = await call()
        await line.ask()
        await asyncio.sleep(LONGER)
        assert b" 200 " in await line.ask()
        line.writer.write(GET[:9])
        assert await line.closed() == b""

    play(scene)


def test_more_of_a_head_gives_it_no_more_time() -> None:
    """Its clock began with the first byte, however many come."""

    async def scene(call: Callable[[], Awaitable[Line]]) -> None:
        line = await call()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        line.writer.write(b"GET / HTTP/1.1\r\n")
        while not line.over and loop.time() - begun < 10:
            line.writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)
        assert HEAD_SECONDS * 0.9 < loop.time() - begun < 10

    play(scene)


def test_a_head_that_came_in_pieces_leaves_no_clock_behind() -> None:
    async def scene(call: Callable[[], Awaitable[Line]]) -> None:
        line = await call()
        for byte in GET[:-1]:
            line.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert b" 200 " in await line.ask(GET[-1:])
        assert b" 200 " in await line.ask()
        assert line.served._deadline is None

    play(scene, seconds=HEAD_SECONDS * 1.5)


def test_who_leaves_half_way_leaves_no_clock_behind() -> None:
    async def scene(call: Callable[[], Awaitable[Line]]) -> None:
        line = await call()
        line.writer.write(GET[:9])
        line.writer.close()
        for _ in range(50):
            await asyncio.sleep(0)
        assert line.served.transport.is_closing() and line.served._deadline is None

    play(scene)


def test_a_refused_body_has_no_more_time_than_a_head() -> None:
    """Its answer is out, so nobody else would end it."""

    async def scene(call: Callable[[], Awaitable[Line]]) -> None:
        line = await call()
        assert b" 401 " in await line.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n")
        for _ in range(500):
            line.writer.write(b"x")
            await asyncio.sleep(0.01)
            if line.over:
                return
        raise AssertionError("the connection is still open")

    play(scene)


def test_a_refused_body_that_has_come_to_its_end_leaves_the_connection_as_any_other() -> None:
    """A load balancer uses it again, and to close it first would look like a failure."""

    async def scene(call: Callable[[], Awaitable[Line]]) -> None:
        line = await call()
        assert b" 401 " in await line.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        for _ in range(2):
            line.writer.write(b"x" * 4)
            await asyncio.sleep(0.02)
        await asyncio.sleep(LONGER)
        assert b" 200 " in await line.ask()
        assert line.served.timeout_keep_alive_task is not None

    play(scene)


def test_an_idle_connection_hears_the_end_late_and_a_busy_one_after_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end a request may be on its way on an idle one; it is answered, and then the line is closed."""

    async def scene(call: Callable[[], Awaitable[Line]]) -> None:
        idle, busy, gone = await call(), await call(), await call()
        busy.writer.write(GET)
        while busy.served.cycle is None:
            await asyncio.sleep(0)
        for line in (idle, busy, gone):
            line.served.shutdown()
        gone.writer.close()  # before its last call
        assert b" 200 " in await idle.ask()
        assert (await busy.closed()).endswith(END)
        assert await idle.closed() == b""
        await asyncio.sleep(0.05)  # the last call of the one that has gone

    monkeypatch.setattr(module, "LAST_CALL_SECONDS", 0.25)
    play(scene)
