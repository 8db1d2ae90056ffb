"""Seeded kill -9 of workers, of the driver and of the sink's server in the middle of jobs: what the sink has in the end must be
what a job that nobody disturbed writes.

    python bench/jobs_kills.py                                          # all three, into PostgreSQL; needs ray, stores-test
    python bench/jobs_kills.py --victims worker driver --sink parquet   # needs the extra ray
    python bench/jobs_kills.py --victims sink --sink milvus --workers 0 # without Ray; needs the extra stores-test

A round is a kill at a random moment. A job takes several, and is started again after those that end it; when it is done every
row must be in the sink once. A server comes back within five seconds or, every fourth time, when the job has given up. Prints
a table, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import tempfile
import time
from bisect import bisect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from jobs import corpus, finished, job, model, one_core

from fivefold.jobs.attempts import QUICK_TRIES, Attempt
from fivefold.jobs.stores.url import Url
from fivefold.vectors import FloatArray
from tests.jobs.stores import servers

WORDS_A_ROW = (2, 6)
PART_ROWS = 128
DOWN_SECONDS = 5.0
RAY_STARTS = 5
GIVEN_UP = 4
"""Every so many kills the server stays away for longer than the job has patience."""
Contents = tuple[list[str], FloatArray]


@dataclass
class Job:
    """One corpus on its way to one output, in as many processes as that takes: when parts were tried and when it was hurt."""

    argv: list[str]
    output: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    tries: dict[tuple[str, int], float] = field(default_factory=dict)
    killed: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Unless it runs."""
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(self.argv, stdout=subprocess.DEVNULL, stderr=log, env=one_core())

    def parts(self) -> int:
        """Finished ones; with a store, those that are there: their files are gone."""
        waiting = len(list(self.output.glob("part-*.parquet"))) if "--store" in self.argv else 0
        return len(finished(self.output)) - waiting

    def wait(self, reached: Callable[[], bool] = lambda: False) -> bool:
        """Until then, or until it ends: whether it was reached."""
        assert self.process is not None
        while self.process.poll() is None:
            self._look()
            if reached():
                return True
            time.sleep(0.01)
        return False

    def end(self) -> None:
        """Run to its end; again, where Ray did not come up in time on a busy machine."""
        for _ in range(RAY_STARTS):
            told = self.log.stat().st_size if self.log.exists() else 0
            self.start()
            self.wait()
            if b"there is no Ray" not in self.log.read_bytes()[told:]:
                break
        assert self.process is not None and self.process.returncode == 0, self.log.read_text()

    def pause(self, seconds: float) -> None:
        """So long, unless it ends before."""
        back = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > back)

    def redone(self) -> list[int]:
        """Parts done again for each kill: the first in the part's earlier try, or, where that ended later, the last before."""
        counts = [0] * len(self.killed)
        for _, same in groupby(sorted((name, at) for (name, _), at in self.tries.items()), key=lambda one: one[0]):
            for (_, before), (_, again) in pairwise(same):
                assert again > self.killed[0], "done again, and nobody was killed"
                counts[min(bisect(self.killed, before), bisect(self.killed, again) - 1)] += 1
        return counts

    def _look(self) -> None:
        """Every try writes its file anew; those that go row by row write it for each row, and go by their number."""
        for path in (self.output / "_fivefold").glob("attempt-*.json"):
            with suppress(FileNotFoundError):
                number = Attempt.from_json(path.read_bytes()).number
                at = path.stat().st_mtime
                self.tries.setdefault((path.name, number if number > QUICK_TRIES else int(1000 * at)), at)


def in_parquet(folder: str) -> Contents:
    table = pq.read_table(folder)
    return table["id"].to_pylist(), np.stack(table["vector"].to_numpy())


def in_postgresql(url: str) -> Contents:
    import psycopg

    with psycopg.connect(url.split("?")[0]) as connection:
        rows = connection.execute(f"SELECT id, vector::real[] FROM {Url.parse(url).options['table']}").fetchall()
    return [name for name, _ in rows], np.array([vector for _, vector in rows], dtype=np.float32)


def in_chroma(url: str) -> Contents:
    import chromadb

    parsed = Url.parse(url)
    with chromadb.HttpClient(parsed.host, parsed.port) as client:
        found = client.get_collection(parsed.name(), embedding_function=None).get(include=["embeddings"])
    return found["ids"], np.array(found["embeddings"])


def in_milvus(url: str) -> Contents:
    from pymilvus import MilvusClient

    parsed = Url.parse(url)
    client = MilvusClient(parsed.server(0))
    client.load_collection(parsed.name())  # a server that was restarted has it not
    pages = client.query_iterator(parsed.name(), batch_size=1000, output_fields=["id", "vector"])
    rows = [row for page in iter(pages.next, []) for row in page]
    client.close()
    return [row["id"] for row in rows], np.array([row["vector"] for row in rows], dtype=np.float32)


SINKS: dict[str, tuple[Callable[[], servers.Server] | None, Callable[[str], Contents]]] = {
    "parquet": (None, in_parquet),
    "postgresql": (servers.postgresql, in_postgresql),
    "chroma": (servers.chroma, in_chroma),
    "milvus": (servers.milvus, in_milvus),
}
"""What starts the server, and what reads everything that is there."""


def kill_worker(job: Job, chosen: random.Random, server: servers.Server | None, number: int) -> None:
    """One of those that have a model."""
    assert job.process is not None
    inside = psutil.Process(job.process.pid).children(recursive=True)
    workers = [process for process in inside if "_Embed" in " ".join(process.cmdline())]
    chosen.choice(workers).send_signal(signal.SIGKILL)


def kill_driver(job: Job, chosen: random.Random, server: servers.Server | None, number: int) -> None:
    assert job.process is not None
    job.process.kill()
    job.process.wait()


def kill_sink(job: Job, chosen: random.Random, server: servers.Server | None, number: int) -> None:
    """And start it again: while the job tries, or when it has given up."""
    assert server is not None and job.process is not None
    server.kill()
    if number % GIVEN_UP == GIVEN_UP - 1:
        job.wait()
        assert job.process.returncode == 2 and b"Nothing is lost" in job.log.read_bytes(), job.log.read_text()
    else:
        job.pause(chosen.uniform(0, DOWN_SECONDS))
    server.start()


KILL = {"worker": kill_worker, "driver": kill_driver, "sink": kill_sink}


@dataclass
class Counts:
    """What kills of one victim did."""

    kills: int = 0
    jobs: int = 0
    rows: int = 0
    parts_redone: int = 0
    most_at_once: int = 0
    largest_difference: float = 0.0


def disturbed(
    job: Job,
    victim: str,
    kills: int,
    *,
    counts: Counts,
    chosen: random.Random,
    server: servers.Server | None,
    total: int,
) -> None:
    """Run one job with so many kills, evenly spread, to its end."""
    for _ in range(kills):
        job.start()
        moment = job.parts() + chosen.randint(2, total // (kills + 1))
        if not job.wait(lambda moment=moment: job.parts() >= moment):
            break  # it was quicker, or there was no Ray
        job.pause(chosen.uniform(0, 0.3))  # into the middle of a part
        print(f"  {victim} killed at {job.parts()} of {total} parts", flush=True)
        job.killed.append(time.time())
        KILL[victim](job, chosen, server, counts.kills)
        counts.kills += 1
    job.end()
    counts.jobs += 1
    counts.parts_redone += sum(job.redone())
    counts.most_at_once = max([counts.most_at_once, *job.redone()])


def difference(whole: Contents, found: Contents) -> float:
    """The largest difference of any number of any vector; every row must be there once."""
    (wanted, vectors), (ids, others) = whole, found
    assert sorted(ids) == sorted(wanted), f"{len(ids)} rows, {len(set(ids))} different ones, of {len(wanted)}"
    return float(np.abs(vectors[np.argsort(wanted)] - others[np.argsort(ids)]).max())


def kills(victim: str, args: argparse.Namespace, work: Path, rows: Path, whole: Contents) -> Counts:
    """All rounds of one victim."""
    chosen, counts = random.Random(f"{args.seed} {victim}"), Counts(rows=args.rows)
    start, read = SINKS[args.sink]
    server = start() if start is not None else None
    try:
        while counts.kills < args.rounds:
            output = work / f"{victim}_{counts.jobs}"
            where = str(output) if server is None else server.url.replace("things", output.name)
            options = ["--part-rows", str(PART_ROWS), *(("--workers", str(args.workers)) if args.workers else ())]
            options += [] if server is None else ["--store", where]
            disturbed(
                Job(job(rows, output, work / "model", *options), output, work / f"{output.name}.log"),
                victim,
                min(args.kills, args.rounds - counts.kills),
                counts=counts,
                chosen=chosen,
                server=server,
                total=-(-args.rows // PART_ROWS),
            )
            counts.largest_difference = max(counts.largest_difference, difference(whole, read(where)))
            print(
                f"  {output.name}: every row once, largest difference so far {counts.largest_difference:.2g}",
                flush=True,
            )
    finally:
        if server is not None:
            server.remove()
    return counts


def main() -> None:
    """All victims, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victims", nargs="+", choices=list(KILL), default=list(KILL))
    parser.add_argument("--sink", choices=list(SINKS), default="postgresql")
    parser.add_argument("--workers", type=int, default=2, help="on Ray; 0 for the job in one process")
    parser.add_argument("--rounds", type=int, default=20, help="kills of each victim")
    parser.add_argument("--kills", type=int, default=5, help="in one job, at most")
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if ("sink" in args.victims and args.sink == "parquet") or ("worker" in args.victims and not args.workers):
        parser.error("files have no server, and a job in one process no workers")
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder, rows = model(work / "model"), corpus(work / "rows.jsonl", args.rows, WORDS_A_ROW)
        undisturbed = job(rows, work / "whole", folder, "--part-rows", str(PART_ROWS))
        subprocess.run(undisturbed, check=True, stdout=subprocess.DEVNULL, env=one_core())
        whole = in_parquet(str(work / "whole"))
        for victim in args.victims:
            results[victim] = vars(kills(victim, args, work, rows, whole))
            print(
                f"{victim:<8} " + "  ".join(f"{key} {value:,.4g}" for key, value in results[victim].items()), flush=True
            )
    print(json.dumps({"benchmark": "jobs_kills", "options": vars(args), **results}))


if __name__ == "__main__":
    main()
