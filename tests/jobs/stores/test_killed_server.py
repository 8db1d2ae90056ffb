"""The store's server is killed in the middle of a stream of upserts and comes back: every row is there exactly once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from fivefold.jobs.origin import prepare
from fivefold.jobs.store import Store
from fivefold.jobs.stores import open_store
from tests.jobs.stores import servers
from tests.jobs.stores.things import ORIGIN, SCHEMA, id_of, rows

pytestmark = [
    pytest.mark.stores,
    pytest.mark.slow,
    # Chroma's client leaves its connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

ROWS, ROUNDS = 4000, 3
STARTERS = {"chroma": servers.chroma, "milvus": servers.milvus, "postgresql": servers.postgresql}


@pytest.fixture(params=STARTERS)
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    started = STARTERS[request.param]()
    yield started
    started.remove()


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
