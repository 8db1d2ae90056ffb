"""Signals while requests are under way: what was accepted is answered, what is dead comes back, who asks twice means it."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.serve import rude
from tests.serve.process import Process

pytestmark = pytest.mark.slow


def listens(port: int) -> bool:
    """Whether connections are accepted; the one that finds out is closed again."""
    try:
        rude.connect(port).close()
        return True
    except ConnectionError:
        return False


def half_a_request(process: Process) -> socket.socket:
    """A client whose body does not come, which keeps its request under way."""
    connection = rude.connect(process.port)
    connection.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
    for _ in range(100):
        in_flight = httpx.get(process.url + "/metrics").text.split("\nfivefold_requests_in_flight ")[1]
        if float(in_flight.split("\n")[0]) == 2:  # with this one
            return connection
        time.sleep(0.05)
    raise AssertionError("the request did not arrive")


def test_sigterm_answers_every_request_that_arrived(launch: Callable[..., Process]) -> None:
    """Plain sockets, so that no client library can try again. What the log calls answered has been received, and all that
    arrived is in the log; a connection that nobody had taken yet is refused by the kernel."""
    process = launch().ready()
    content = json.dumps({"inputs": ["a fox"] * 50}).encode()
    request = b"POST /embed HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(content)
    request += content

    def ask() -> int:
        """The status; 0 where nobody listens any more."""
        try:
            with rude.connect(process.port) as connection:
                connection.sendall(request)
                (status,) = rude.statuses(connection)
                return status
        except ConnectionError:
            return 0

    with ThreadPoolExecutor(16) as pool:
        before: list[Future[int]] = [pool.submit(ask) for _ in range(100)]
        while not any(one.done() for one in before):
            time.sleep(0.001)
        process.popen.send_signal(signal.SIGTERM)
        after = [pool.submit(ask) for _ in range(50)]
        found = [one.result(60) for one in (*before, *after)]
    status, out = process.end()
    assert status == 0
    logged = Counter(line["status"] for line in map(json.loads, out.splitlines()) if line.get("method") == "POST")
    assert logged == Counter(status for status in found if status)
    assert set(logged) <= {200, 503} and logged[200] >= 1


def test_a_request_that_is_on_its_way_when_the_server_ends_is_answered(launch: Callable[..., Process]) -> None:
    """On connections that are open but idle, new and used ones; nobody listens any more by then."""
    process = launch().ready()
    new, used = rude.connect(process.port), rude.connect(process.port)
    rude.ask_again(used)
    process.popen.send_signal(signal.SIGTERM)
    while listens(process.port):
        time.sleep(0.005)
    for connection in (new, used):
        connection.sendall(b'POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{"inputs":"a"}')
        assert rude.statuses(connection) == [503]
        connection.close()
    assert process.end()[0] == 0


def test_a_killed_server_comes_back(launch: Callable[..., Process]) -> None:
    """kill -9 with requests under way; the next one takes the same port at once."""
    first = launch().ready()
    waiting = half_a_request(first)
    first.popen.kill()
    first.popen.communicate()
    again = launch(port=first.port).ready()
    assert httpx.post(first.url + "/embed", json={"inputs": "a fox"}).status_code == 200
    waiting.close()
    assert again.stop()[0] == 0


def test_a_second_sigterm_ends_it_at_once(launch: Callable[..., Process]) -> None:
    process = launch().ready()
    waiting = half_a_request(process)
    process.popen.send_signal(signal.SIGTERM)
    while httpx.get(process.url + "/ready").status_code == 200:
        time.sleep(0.05)
    begun = time.monotonic()
    process.popen.send_signal(signal.SIGTERM)
    assert process.end()[0] == 1
    assert time.monotonic() - begun < 2
    waiting.close()


def test_a_drain_that_takes_too_long_is_no_success(launch: Callable[..., Process]) -> None:
    process = launch("--drain-seconds", "1").ready()
    waiting = half_a_request(process)
    status, out = process.stop()
    assert status == 1 and "1 requests were not finished" in out
    waiting.close()
