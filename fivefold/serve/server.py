"""The process: uvicorn, a drain on SIGTERM, and one line of JSON for everything that is logged."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from functools import partial
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from fivefold.serve import wire
from fivefold.serve.connection import Connection
from fivefold.serve.gate import State

log = logging.getLogger("fivefold.serve")

KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep theirs (60), so that it is never we who close a connection they still use."""


SWITCH_SECONDS = 0.001
"""How long Python lets one thread keep the others waiting. By default it is 5 ms, and a forward pass, which gives way at every
matrix, would wait so long for the event loop each time; shorter, queries of many clients go a sixth faster."""


class DrainingServer(uvicorn.Server):
    """uvicorn that finishes what it accepted: the first signal turns readiness off and refuses new work, and the process
    ends when nothing is in flight, or after `drain_seconds`. A second signal ends it at once, with status 1.
    """

    def __init__(self, config: uvicorn.Config, state: State, drain_seconds: float) -> None:
        super().__init__(config)
        self._state, self._drain_seconds = state, drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self.unfinished = 0

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Remember the loop for the signal handler."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Accept who waits already, as the kernel resets whom a listener leaves behind."""
        for _ in range(2):  # rounds of the loop: one to see them, one to take them
            await asyncio.sleep(0)
        await super().shutdown(sockets)  # type: ignore[arg-type]

    def stop(self) -> None:
        """End at the next tick."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal. uvicorn would remember it and raise it again at the end; a drained server exits with 0."""
        if self._state.draining or self._loop is None:
            os._exit(1)  # whatever the threads are doing
        self._state.draining = True
        self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._drain()))

    async def _drain(self) -> None:
        end = time.monotonic() + self._drain_seconds
        while self._state.in_flight and time.monotonic() < end:
            await asyncio.sleep(0.05)
        self.unfinished = self._state.in_flight
        self.should_exit = True


def run(app: Starlette, *, host: str, port: int, drain_seconds: float, head_seconds: float) -> None:
    """Serve until a signal. Raises what loading the model raised; where a drain takes too long the process ends with 1."""
    state: State = app.state.serve
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=partial(Connection, head_seconds),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
    )
    server = DrainingServer(config, state, drain_seconds)
    sys.setswitchinterval(SWITCH_SECONDS)
    state.on_failure = server.stop
    server.run()
    if state.failure is not None:
        raise state.failure
    if server.unfinished:
        log.error("%d requests were not finished within %g s", server.unfinished, drain_seconds)
        os._exit(1)  # without waiting for threads that still work on them


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, message, and the facts that came with it."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return wire.dumps(line).decode("utf-8")


def log_to_stdout(level: str) -> None:
    """Everything the process logs, as lines of JSON on standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in ("uvicorn", "httpx"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))
