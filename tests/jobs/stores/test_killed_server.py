"""The store's server is killed in the middle of upserts and comes back, in time or not: every row is there exactly once."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fivefold import StoreError
from fivefold.jobs.folder import Finished, Folder
from fivefold.jobs.job import Here, Target
from fivefold.jobs.origin import prepare
from fivefold.jobs.plan import Plan
from fivefold.jobs.store import Store
from fivefold.jobs.stores import open_store
from fivefold.jobs.work import Settings
from tests import toy
from tests.jobs.corpus import Counting, jsonl, run, written
from tests.jobs.corpus import rows as texts
from tests.jobs.stores import servers
from tests.jobs.stores.things import ORIGIN, SCHEMA, id_of, rows

pytestmark = [
    pytest.mark.stores,
    pytest.mark.slow,
    # Chroma's client leaves its connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

pytest.importorskip("tenacity")

from fivefold.jobs.stores import patience  # noqa: E402

ROWS, ROUNDS = 4000, 3
STARTERS = {"chroma": servers.chroma, "milvus": servers.milvus, "postgresql": servers.postgresql}


@pytest.fixture(params=STARTERS)
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    started = STARTERS[request.param]()
    yield started
    started.remove()
    servers.collect_sockets()


def write(store: Store, stopped: threading.Event) -> None:
    for start in range(0, ROWS, 200):
        if stopped.is_set():
            return
        store.upsert(rows(range(start, start + 200)))


def test_every_row_is_there_once(server: servers.Server) -> None:
    """First the writer outlives the server, by its own patience; then, as after a crash of both, all is written again."""
    chance = random.Random(7)
    store = open_store(server.url)
    prepare(store, ORIGIN, SCHEMA)
    for _ in range(ROUNDS):
        failures: list[BaseException] = []
        stopped = threading.Event()

        def writing(failures: list[BaseException] = failures, stopped: threading.Event = stopped) -> None:
            try:
                write(store, stopped)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=writing)
        thread.start()
        time.sleep(chance.uniform(0.05, 1.5))
        server.kill()
        time.sleep(chance.uniform(0, 1))
        server.start()
        time.sleep(chance.uniform(0, 1))
        stopped.set()
        thread.join()
        assert not failures, failures
    store.close()
    store = open_store(server.url)
    write(store, threading.Event())
    assert store.count() == ROWS
    for number in range(0, ROWS, 97):
        vector = rows(range(number, number + 1)).vectors[0]
        hits = store.search(vector, limit=2)
        assert hits[0].id == id_of(number) and hits[0].score > 0.999 > hits[1].score
    store.close()


@dataclass
class Killing(Counting):
    """An engine that kills the store's server when it has done so many parts."""

    server: servers.Server | None = None

    def work(self, plan: Plan, wanted: frozenset[int], settings: Settings, folder: Folder) -> Iterator[Finished]:
        for line in super().work(plan, wanted, settings, folder):
            if len(self.did) == 3 and self.server is not None:
                self.server.kill()
            yield line


def test_a_job_gives_up_and_goes_on(server: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was embedded when the server went away is sent when it is back, and embedded once."""
    embedder = toy.embedder()
    corpus = jsonl(tmp_path / "a.jsonl", texts(30))
    run(corpus, tmp_path / "whole", embedder)
    engine = Killing(Here(embedder), server=server)
    store = open_store(server.url)
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="Nothing is lost"):
        for module in (patience, sys.modules[type(store).__module__]):  # Milvus's client has it, too
            patch.setattr(module, "PATIENCE_SECONDS", 0.5, raising=False)
        run(corpus, tmp_path / "out", embedder, engine=engine, target=Target(store, "things"))
    store.close()
    assert engine.did == [0, 1, 2] and len(list((tmp_path / "out").glob("*.parquet"))) == 1
    server.start()
    store, again = open_store(server.url), Counting(Here(embedder))
    run(corpus, tmp_path / "out", embedder, engine=again, target=Target(store, "things"))
    assert again.did == [3, 4, 5, 6, 7] and store.count() == 30
    for name, vector in written(tmp_path / "whole").items():
        hit = store.search(vector, limit=1)[0]
        assert hit.score > 1 - 1e-5 and hit.columns["text"] == texts(int(name[1:]) + 1)[-1]["text"]
    store.close()
