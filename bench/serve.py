"""The server over HTTP against `Embedder.encode` in this process: same model, same texts, in turn.

    python bench/serve.py                         # v3-nano
    python bench/serve.py --model FOLDER --seconds 5

Clients and server share the machine, as in any test of this kind, so the ratios are a lower bound. Clients are plain
asyncio sockets with keep-alive. Prints a table, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from fivefold import Embedder

CLIENTS, TEXTS_A_REQUEST = 64, 16
WORDS = (
    "the server packs texts of many clients into one batch and answers each of them as soon as its part is done".split()
)


def text(number: int, words: int) -> str:
    """A text nobody sent before, so that nothing could be kept from earlier."""
    return f"{number} " + " ".join(WORDS[(number * 7 + i) % len(WORDS)] for i in range(words))


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def post(self, body: dict[str, Any]) -> bytes:
        """The body of the answer; anything but 200 ends the bench."""
        data = json.dumps(body).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        content = await self.reader.readexactly(length)
        assert " 200 " in lines[0], content
        return content


def start(model: str, *options: str) -> tuple[subprocess.Popen[bytes], int]:
    """A server that is ready, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "fivefold", "serve", "--model", model, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen([*argv, *options])
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
            return process, port
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
    raise AssertionError("the server did not become ready")


def median_ms(work: Callable[[], object], rounds: int) -> float:
    """Median time of one call, after a few that warm up."""
    times = []
    for number in range(rounds + 5):
        begun = time.perf_counter()
        work()
        if number >= 5:
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


async def latency(port: int, rounds: int) -> float:
    """Median time of one short query on an idle server, in ms."""
    times = []
    async with Client(port) as client:
        for number in range(rounds + 5):
            begun = time.perf_counter()
            await client.post({"input": text(number, 8), "task": "retrieval.query", "encoding_format": "base64"})
            if number >= 5:
                times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


async def requests_per_second(port: int, clients: int, seconds: float, make: Callable[[int], dict[str, Any]]) -> float:
    """Requests answered to so many clients, each sending the next when it has its answer."""
    numbers, done = count(), 0
    end = time.perf_counter() + seconds

    async def work() -> None:
        nonlocal done
        async with Client(port) as client:
            while time.perf_counter() < end:
                await client.post(make(next(numbers)))
                done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    return done / (time.perf_counter() - begun)


def query(number: int) -> dict[str, Any]:
    return {"input": text(number, 8), "task": "retrieval.query", "encoding_format": "base64"}


def passages(number: int) -> dict[str, Any]:
    texts = [text(number * TEXTS_A_REQUEST + i, 4 + (number + 5 * i) % 60) for i in range(TEXTS_A_REQUEST)]
    return {"input": texts, "task": "retrieval.passage", "encoding_format": "base64"}


def in_process(embedder: Embedder, seconds: float) -> float:
    """Texts a second of `encode`, many at a time."""
    done, begun = 0, time.perf_counter()
    for block in count():
        texts = [t for n in range(CLIENTS) for t in passages(block * CLIENTS + n)["input"]]
        embedder.encode(texts, task="retrieval.passage")
        done += len(texts)
        if time.perf_counter() - begun > seconds:
            break
    return done / (time.perf_counter() - begun)


async def check(port: int, embedder: Embedder) -> float:
    """Largest difference of a number over HTTP and in this process."""
    body = passages(3)
    async with Client(port) as client:
        answer = json.loads(await client.post(body))
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in answer["data"]]
    return float(np.abs(np.array(rows) - embedder.encode(body["input"], task="retrieval.passage")).max())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="v3-nano")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=200, help="queries of each latency")
    args = parser.parse_args()
    embedder = Embedder.load(args.model)
    numbers = count()
    found = {"encode_ms": median_ms(lambda: embedder.encode_query(text(next(numbers), 8)), args.rounds)}
    found["encode_texts_per_s"] = in_process(embedder, args.seconds)
    process, port = start(args.model, "--max-queue-tokens", str(1 << 20))
    try:
        found["max_difference"] = asyncio.run(check(port, embedder))
        found["http_ms"] = asyncio.run(latency(port, args.rounds))
        found["http_texts_per_s"] = TEXTS_A_REQUEST * asyncio.run(
            requests_per_second(port, CLIENTS, args.seconds, passages)
        )
        found["queries_per_s_1_client"] = asyncio.run(requests_per_second(port, 1, args.seconds, query))
        found[f"queries_per_s_{CLIENTS}_clients"] = asyncio.run(requests_per_second(port, CLIENTS, args.seconds, query))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    found["added_ms"] = found["http_ms"] - found["encode_ms"]
    found["throughput_ratio"] = found["http_texts_per_s"] / found["encode_texts_per_s"]
    found["coalescing"] = found[f"queries_per_s_{CLIENTS}_clients"] / found["queries_per_s_1_client"]
    for name, value in found.items():
        print(f"{name:<28}{value:>12.3g}")
    print(json.dumps({"bench": "serve", **{name: round(value, 7) for name, value in found.items()}}))


if __name__ == "__main__":
    main()
