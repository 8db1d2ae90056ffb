"""The server at twice its capacity: what is refused, how long the rest takes, whether memory grows.

    python bench/soak.py                          # v3-nano, the defaults of `fivefold serve`

The mix is what a search application sends: mostly single queries, texts of other tasks, batches of passages, documents
with late chunking; with `--queries` only the queries. Unloaded is the mix one request at a time, before and after;
capacity is what as many clients as `CLIENTS` get through; then requests arrive at random times at `--load` times that
rate, whether or not earlier ones are answered. Clients share the machine with the server. Prints a table, and one line of
JSON last; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from serve import FIVEFOLD, free_port, launch, text

CLIENTS = 16
BODIES = 2000
HANG_SECONDS = 60
SAMPLE_SECONDS = 5
MAX_RATIO, MAX_GROWTH_MB = 3.0, 50.0
TASKS = ("text-matching", "classification", "separation", None)


def body(rng: random.Random, number: int, kind: float) -> dict[str, object]:
    """One request of the mix; 600 tokens on average, 6,000 at most."""

    def texts(n: int, least: int, most: int) -> list[str]:
        return [text(number * 64 + i, rng.randint(least, most)) for i in range(n)]

    if kind < 0.60:
        return {"input": texts(1, 4, 14), "task": "retrieval.query"}
    if kind < 0.74:
        return {"input": texts(1, 20, 200), "task": rng.choice(TASKS)}
    if kind < 0.90:
        return {"input": texts(8, 40, 200), "task": "retrieval.passage"}
    if kind < 0.95:
        return {"input": texts(32, 40, 200), "task": "retrieval.passage"}
    return {"input": texts(rng.randint(8, 40), 100, 120), "task": "retrieval.passage", "late_chunking": True}


def requests(seed: int, queries: bool) -> list[bytes]:
    """Whole requests, made before the clock runs."""
    rng = random.Random(seed)
    made = []
    for number in range(BODIES):
        content = json.dumps(
            {**body(rng, number, 0.0 if queries else rng.random()), "encoding_format": "base64"}
        ).encode()
        made.append(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
    return made


@dataclass
class Answers:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    hangs: int = 0
    without_retry_after: int = 0

    def quantile_ms(self, q: float) -> float:
        return float(np.quantile(self.seconds, q)) * 1000 if self.seconds else float("nan")


class Pool:
    """Connections that are kept; a request takes a free one or a new one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes, found: Answers) -> int:
        """Send one request and note its answer; the status, 0 for none."""
        begun = time.perf_counter()
        try:
            status, head = await asyncio.wait_for(self._exchange(request), HANG_SECONDS)
        except (asyncio.TimeoutError, OSError, asyncio.IncompleteReadError):
            found.hangs += 1
            return 0
        found.statuses[status] += 1
        if status == 200:
            found.seconds.append(time.perf_counter() - begun)
        elif status == 429:
            found.without_retry_after += b"\r\nretry-after:" not in head.lower()
        return status

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        self._free = [pair for pair in self._free if not pair[0].at_eof()]  # closed by the server, after 75 s
        free = self._free.pop() if self._free else None
        reader, writer = free or await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        self._free.append((reader, writer))
        return int(head.split(b" ", 2)[1]), head


async def unloaded(pool: Pool, made: list[bytes], found: Answers) -> None:
    """The mix, one at a time."""
    for request in made:
        await pool.ask(request, found)


async def capacity(pool: Pool, made: list[bytes], seconds: float) -> float:
    """Requests a second of clients that each wait for an answer; one that is refused is sent again, so the mix stays."""
    numbers, found = count(), Answers()
    end = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            request = made[next(numbers) % BODIES]
            while await pool.ask(request, found) == 429:
                await asyncio.sleep(0.2)

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return found.statuses[200] / (time.perf_counter() - begun)


async def overload(pool: Pool, made: list[bytes], rate: float, seconds: float) -> Answers:
    """Arrivals at random times, `rate` a second, that nobody holds back."""
    rng, found, running = random.Random(1), Answers(), set()
    begun, due = time.perf_counter(), 0.0
    for number in count():
        due += rng.expovariate(rate)
        if due > seconds:
            break
        await asyncio.sleep(max(0.0, begun + due - time.perf_counter()))
        task = asyncio.ensure_future(pool.ask(made[number % BODIES], found))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return found


async def watched(pid: int, samples: list[tuple[float, int, int, int]]) -> None:
    """Seconds, resident MB, threads and open files of the server, now and then."""
    begun = time.perf_counter()
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        value = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        samples.append((time.perf_counter() - begun, int(value["VmRSS"]) // 1024, int(value["Threads"]), files))
        await asyncio.sleep(SAMPLE_SECONDS)


async def measured(port: int, pid: int, args: argparse.Namespace) -> dict[str, float]:
    """All phases on one server."""
    pool, made, idle = Pool(port), requests(args.seed, args.queries), Answers()
    half = args.rounds // 2
    await unloaded(pool, made[-20:], Answers())
    await unloaded(pool, made[:half], idle)
    most = await capacity(pool, made, args.seconds)
    samples: list[tuple[float, int, int, int]] = []
    watch = asyncio.ensure_future(watched(pid, samples))
    busy = await overload(pool, made, args.load * most, args.minutes * 60)
    watch.cancel()
    await unloaded(pool, made[half : 2 * half], idle)  # the machine may be another one by now
    warm = min(60, args.minutes * 30)
    first, later = (max(memory for at, memory, *_ in samples if (at > warm) is late) for late in (False, True))
    sent = sum(busy.statuses.values()) + busy.hangs
    return {
        "capacity_per_s": most,
        "offered_per_s": sent / (args.minutes * 60),
        "ok": busy.statuses[200],
        "refused_429": busy.statuses[429],
        "other_4xx": sum(n for s, n in busy.statuses.items() if 400 <= s < 500 and s != 429),
        "status_5xx": sum(n for s, n in busy.statuses.items() if s >= 500),
        "hangs": busy.hangs,
        "refused_without_retry_after": busy.without_retry_after,
        "unloaded_p50_ms": idle.quantile_ms(0.5),
        "unloaded_p99_ms": idle.quantile_ms(0.99),
        "admitted_p50_ms": busy.quantile_ms(0.5),
        "admitted_p99_ms": busy.quantile_ms(0.99),
        "p99_ratio": busy.quantile_ms(0.99) / idle.quantile_ms(0.99),
        "rss_mb_first_minute": first,
        "rss_mb_later": later,
        "rss_mb_growth": later - first,
        "threads": max(threads for _, _, threads, _ in samples),
        "open_files": max(files for *_, files in samples),
    }


def missed(found: dict[str, float]) -> list[str]:
    """The bars that were not met."""
    bars = {
        "no 5xx": found["status_5xx"] == 0,
        "no hang": found["hangs"] == 0,
        "excess is refused": found["refused_429"] > 0 and found["other_4xx"] == 0,
        "429 says when to come back": found["refused_without_retry_after"] == 0,
        f"p99 at most {MAX_RATIO:g} times unloaded": found["p99_ratio"] <= MAX_RATIO,
        f"memory grows less than {MAX_GROWTH_MB:g} MB": found["rss_mb_growth"] < MAX_GROWTH_MB,
    }
    return [name for name, met in bars.items() if not met]


def main() -> int:
    """Measure, print, compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="v3-nano")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--load", type=float, default=2.0, help="times the capacity")
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring the capacity")
    parser.add_argument("--rounds", type=int, default=400, help="requests of the unloaded times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--queries", action="store_true", help="short queries only")
    args = parser.parse_args()
    port = free_port()
    options = ("--model", args.model, "--port", str(port), "--log-level", "warning")
    process = launch([*FIVEFOLD, "serve", *options], port, "/ready")
    try:
        found = asyncio.run(measured(port, process.pid, args))
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    for name, value in found.items():
        print(f"{name:<28}{value:>12.4g}")
    failed = missed(found) + ([f"a clean end, not status {status}"] if status else [])
    for name in failed:
        print(f"MISSED: {name}")
    numbers = {name: round(value, 3) for name, value in found.items()}
    print(json.dumps({"bench": "soak", "queries": args.queries, "minutes": args.minutes, "missed": failed, **numbers}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
