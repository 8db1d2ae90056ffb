"""Rude clients against the real process: whatever they send, only 2xx and 4xx, and everybody else is served meanwhile."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from fivefold.serve.app import ENDPOINTS
from tests.serve import rude
from tests.serve.process import ROOT, Process

NANO = ROOT / "fivefold" / "models" / "v3-nano"
STALL_SECONDS = 5
"""Time for a good request after a bad one: they may share a busy machine, but not wait for one another."""


class Target:
    """A server under attack, with one good client."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = Process(folder, "--log-level", "error", *options).ready()
        self.port = self.process.port
        self.client = httpx.Client(base_url=self.process.url, timeout=STALL_SECONDS)

    def attack(self, kind: Callable[..., object], seed: str) -> None:
        """One bad request or scene, and what must hold after it."""
        try:
            found = self.answers_to(kind, random.Random(seed))
        except TimeoutError:
            pytest.fail(f"{kind.__name__} {seed}: no answer for {rude.SECONDS} s")
        assert isinstance(found, list)
        assert all(status < 500 for status in found), f"{kind.__name__} {seed}: {found}"
        self.serves()

    def answers_to(self, kind: Callable[..., object], rng: random.Random) -> object:
        """The statuses that came back; a whole request has at least one."""
        if kind in rude.SCENES:
            return kind(self.port, rng)
        whole = kind not in rude.HEADS
        made = kind(rng)
        assert isinstance(made, bytes)
        found = rude.answers(self.port, rude.post(rng, made) if whole else made, whole_request=whole)
        assert found or not whole, f"{kind.__name__}: no answer"
        return found

    def serves(self) -> None:
        assert self.client.get("/ready").status_code == 200
        assert self.client.post("/v1/embeddings", json={"input": "a fox"}).status_code == 200

    def __enter__(self) -> Target:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        """It ends as it should; after a failure it is only made to end."""
        self.client.close()
        if failure is not None:
            self.process.popen.kill()
            self.process.end()
            return
        status, out = self.process.stop()
        assert status == 0, out
        assert "Traceback" not in out, out


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Iterator[Target]:
    with Target(tiny_folder, "--max-body-bytes", str(8 << 20)) as target:
        yield target


def test_every_route_is_attacked() -> None:
    assert set(rude.ROUTES) < {path for point in ENDPOINTS for path in point.paths} | {"/"}
    properties = {name for point in ENDPOINTS for name in point.request.model_json_schema()["properties"]}
    assert properties <= set(rude.FIELDS)


@pytest.mark.parametrize("kind", [*rude.LIGHT_BODIES, *rude.HEADS, *rude.SCENES], ids=lambda kind: kind.__name__)
def test_rude_requests(tiny: Target, kind: Callable[..., object]) -> None:
    for number in range(6):
        tiny.attack(kind, f"quick {number}")


@pytest.mark.parametrize("kind", rude.HEAVY_BODIES, ids=lambda kind: kind.__name__)
def test_heavy_requests(tiny: Target, kind: Callable[..., object]) -> None:
    tiny.attack(kind, "quick")


def test_a_head_that_does_not_come_and_an_answer_that_is_not_read(tiny_folder: Path) -> None:
    """Neither holds a connection for long: a byte now and then is no request, and a server cannot wait for all."""
    with Target(tiny_folder, "--body-seconds", "1") as target:
        silent, dripping = rude.connect(target.port), rude.connect(target.port)
        idle = rude.connect(target.port)
        rude.ask_again(idle)
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - begun < 10:
                dripping.sendall(b"GET /live HTTP/1.1\r\nX: a\r\n"[:1])
                time.sleep(0.1)
        assert time.monotonic() - begun > 0.5
        assert silent.recv(10) == b""
        rude.ask_again(idle)  # between two requests a connection has the keep-alive time
        for connection in (silent, dripping, idle):
            connection.close()


def test_many_connections_that_say_nothing(tiny: Target) -> None:
    silent = [socket.create_connection(("127.0.0.1", tiny.port)) for _ in range(300)]
    tiny.serves()
    for connection in silent:
        connection.close()


@pytest.mark.fuzz
@pytest.mark.skipif(not NANO.is_dir(), reason="this checkout came without v3-nano")
def test_the_long_run() -> None:
    """Half an hour at most of everything, on the model that ships; the server keeps its memory, threads and files."""
    with Target(NANO) as target:
        kinds = [*rude.LIGHT_BODIES, *rude.HEAVY_BODIES, *rude.HEADS, *rude.SCENES]
        for number in range(40 * len(kinds)):
            target.attack(kinds[number % len(kinds)], f"long {number}")
            if number == 10 * len(kinds):
                memory, threads, _ = target.process.size()
        later, more, files = target.process.size()
        assert later - memory < 200 and more == threads and files < 60, (memory, later, threads, more, files)
