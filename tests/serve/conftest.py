"""A whole server on the tiny model, called in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fivefold import Embedder
from fivefold.serve.app import create_app
from fivefold.serve.limits import Limits
from fivefold.serve.metrics import Metrics
from fivefold.serve.service import Names, Service
from tests.serve.process import Process


class Server:
    """The application on a loop of its own, so that tests stay plain functions; several may call it at once."""

    def __init__(self, embedder: Embedder, *, keys: tuple[str, ...] = (), load: bool = True, **options: Any) -> None:
        cors = options.pop("cors_origins", ())
        names = options.pop("names", Names("tiny", ("jina-embeddings-v3",)))
        auto_truncate = options.pop("auto_truncate", False)
        limits = Limits(**{"max_input_length": 64, "max_batch_tokens": 256, "max_queue_tokens": 4096, **options})

        def start(metrics: Metrics) -> Service:
            return Service.start([embedder], names=names, limits=limits, metrics=metrics, auto_truncate=auto_truncate)

        self.app = create_app(start, keys=keys, cors_origins=cors)
        self.state = self.app.state.serve
        if load:
            self.state.service = start(self.state.metrics)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        transport = httpx.ASGITransport(self.app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://server", timeout=30)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer: httpx.Response = self.run(self._client.request(method, path, **options))
        return answer

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.request("POST", path, **({"json": body} if body is not None else {}), **options)

    def close(self) -> None:
        self.run(self._client.aclose())
        if self.state.service is not None:
            self.run(self.state.service.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def embedder(tiny_folder: Path) -> Embedder:
    return Embedder.load(tiny_folder)


@pytest.fixture(scope="module")
def server(embedder: Embedder) -> Iterator[Server]:
    made = Server(embedder)
    yield made
    made.close()


@pytest.fixture
def serve(embedder: Embedder) -> Iterator[Callable[..., Server]]:
    """A server with other settings."""
    made: list[Server] = []

    def start(**options: Any) -> Server:
        made.append(Server(embedder, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def launch(tiny_folder: Path) -> Iterator[Callable[..., Process]]:
    """Starts servers as processes of their own, which end with the test."""
    started: list[Process] = []

    def start(*options: str, port: int = 0, **environment: str) -> Process:
        started.append(Process(tiny_folder, *options, port=port, **environment))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()
