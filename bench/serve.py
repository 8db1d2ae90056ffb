"""The server over HTTP against `Embedder.encode` in this process, and against sentence-transformers behind FastAPI: the same
weights, the same texts, in turn.

    pip install '.[serve,bench]'
    python bench/serve.py                         # v3-nano
    python bench/serve.py --model FOLDER --seconds 10 --rounds 5

Clients and server share the machine, as in any test of this kind, so the ratios are a lower bound. Clients are plain
asyncio sockets with keep-alive. Prints medians of the rounds, and one line of JSON last.
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
import tempfile
import time
import urllib.request
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from fivefold import Embedder

CLIENTS, TEXTS_A_REQUEST, WARM_UP = 64, 8, 5
FIVEFOLD = (sys.executable, "-m", "fivefold")
ROOM = ("--max-queue-tokens", "65536")  # for 64 clients with batches that do not come back after a 429
BASELINE = Path(__file__).with_name("serve_baseline.py")
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

    async def post(self, body: dict[str, Any], path: str = "/v1/embeddings") -> bytes:
        """The body of the answer; anything but 200 ends the bench."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        self.writer.write(head.encode() + data)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        content = await self.reader.readexactly(length)
        assert " 200 " in lines[0], content
        return content


def launch(argv: list[str], port: int, path: str) -> subprocess.Popen[bytes]:
    """A server process that answers `path`."""
    process = subprocess.Popen(argv)
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
            return process
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
    raise AssertionError("the server did not become ready")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def query(number: int) -> dict[str, Any]:
    return {"input": text(number, 8), "task": "retrieval.query", "encoding_format": "base64"}


def passages(number: int) -> dict[str, Any]:
    texts = [text(number * TEXTS_A_REQUEST + i, 4 + (number + 5 * i) % 60) for i in range(TEXTS_A_REQUEST)]
    return {"input": texts, "task": "retrieval.passage", "encoding_format": "base64"}


async def seconds_of(client: Client, body: dict[str, Any]) -> float:
    """Time of one request."""
    begun = time.perf_counter()
    await client.post(body)
    return time.perf_counter() - begun


async def latencies(port: int, embedder: Embedder, queries: int) -> tuple[float, float]:
    """Median time in ms of one short query, on an idle server and in this process, in turn; the first few warm up."""
    over_http, here = [], []
    async with Client(port) as client:
        for number in range(queries + WARM_UP):
            over_http.append(await seconds_of(client, query(number)))
            begun = time.perf_counter()
            embedder.encode_query(text(number + queries, 8))
            here.append(time.perf_counter() - begun)
    return statistics.median(over_http[WARM_UP:]) * 1000, statistics.median(here[WARM_UP:]) * 1000


def requests_per_second(
    port: int, clients: int, seconds: float, make: Callable[[int], dict[str, Any]], path: str = "/v1/embeddings"
) -> float:
    """Requests answered to so many clients, each sending the next when it has its answer."""
    numbers, done = count(), 0
    begun = time.perf_counter()

    async def work() -> None:
        nonlocal done
        async with Client(port) as client:
            while time.perf_counter() < begun + seconds:
                await client.post(make(next(numbers)), path)
                done += 1

    async def all_clients() -> None:
        await asyncio.gather(*(work() for _ in range(clients)))

    asyncio.run(all_clients())
    return done / (time.perf_counter() - begun)


def in_process(embedder: Embedder, seconds: float) -> float:
    """Texts a second of `encode`, the texts of all clients in one call."""
    done, begun = 0, time.perf_counter()
    for block in count():
        texts = [t for n in range(CLIENTS) for t in passages(block * CLIENTS + n)["input"]]
        embedder.encode(texts, task="retrieval.passage")
        done += len(texts)
        if time.perf_counter() - begun > seconds:
            break
    return done / (time.perf_counter() - begun)


async def difference(port: int, baseline: int, embedder: Embedder) -> dict[str, float]:
    """Largest difference of a number to `encode`: over HTTP, and of the baseline, which must do the same work."""
    body = passages(3)
    here = embedder.encode(body["input"], task="retrieval.passage")
    async with Client(port) as client, Client(baseline) as other:
        answer = json.loads(await client.post(body))
        theirs = np.array(json.loads(await other.post({"input": body["input"]}, "/embed")))
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in answer["data"]]
    return {"difference": float(np.abs(rows - here).max()), "baseline_difference": float(np.abs(theirs - here).max())}


def one_round(port: int, baseline: int, embedder: Embedder, seconds: float, queries: int) -> dict[str, float]:
    """Every figure once, and the ratios of those measured one after the other."""
    here = in_process(embedder, seconds)
    http = TEXTS_A_REQUEST * requests_per_second(port, CLIENTS, seconds, passages)
    theirs = TEXTS_A_REQUEST * requests_per_second(baseline, CLIENTS, seconds, passages, "/embed")
    one = requests_per_second(port, 1, seconds, query)
    many = requests_per_second(port, CLIENTS, seconds, query)
    http_ms, here_ms = asyncio.run(latencies(port, embedder, queries))
    return {
        "encode_texts_per_s": here,
        "http_texts_per_s": http,
        "baseline_texts_per_s": theirs,
        "throughput_ratio": http / here,
        "over_baseline": http / theirs,
        "queries_per_s_1_client": one,
        f"queries_per_s_{CLIENTS}_clients": many,
        "coalescing": many / one,
        "encode_ms": here_ms,
        "http_ms": http_ms,
        "added_ms": http_ms - here_ms,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="v3-nano")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=100, help="of each latency")
    args = parser.parse_args()
    embedder = Embedder.load(args.model)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*FIVEFOLD, "convert", args.model, folder, "--layout", "transformers"], check=True)
        ports = free_port(), free_port()
        options = ("--model", args.model, "--port", str(ports[0]), "--log-level", "warning", *ROOM)
        ours = launch([*FIVEFOLD, "serve", *options], ports[0], "/ready")
        theirs = launch([sys.executable, str(BASELINE), folder, str(ports[1])], ports[1], "/docs")
        try:
            found = asyncio.run(difference(*ports, embedder))
            rounds = [one_round(*ports, embedder, args.seconds, args.queries) for _ in range(args.rounds)]
        finally:
            theirs.kill()
            ours.send_signal(signal.SIGTERM)
            assert ours.wait(60) == 0
    found |= {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    for name, value in found.items():
        print(f"{name:<28}{value:>12.3g}")
    print(json.dumps({"bench": "serve", **{name: round(value, 7) for name, value in found.items()}}))


if __name__ == "__main__":
    main()
