"""The same application as a Ray Serve deployment: several processes or machines behind one address.

Ray Serve spreads requests over replicas, starts and stops replicas with the load, replaces those that fail, and rolls a new
deployment out replica by replica. Each replica is the whole application of `app.py` with a model and a queue of its own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable

from starlette.applications import Starlette

from fivefold.errors import InputError, MissingExtraError
from fivefold.fleet import Fleet
from fivefold.serve.gate import State

try:
    import ray
    from ray import serve
except ModuleNotFoundError as error:
    raise MissingExtraError(f"replicas need {error.name}: pip install 'fivefold[ray,serve]'") from None

NAME = "fivefold"
ONGOING_TARGET = 16
"""Requests at a replica before another one is started: a few batches full, since a replica computes many at one time."""

log = logging.getLogger("fivefold.serve")


def run(
    build: Callable[[], Starlette],
    *,
    host: str,
    port: int,
    replicas: Fleet,
    drain_seconds: float,
    most_requests: int,
) -> None:
    """Deploy, and on a Ray of our own serve until a signal. On a cluster the deployment stays when this returns, and doing it
    again replaces it replica by replica.

    Args:
        build: makes the application, in each replica.
        drain_seconds: how long a replica that is stopped may finish what it has.
        most_requests: requests at a replica; more wait at the door.
    """
    try:
        replicas.connect()
    except ConnectionError as error:
        raise InputError(str(error)) from None
    serve.start(http_options={"host": host, "port": port})
    serve.run(_deployment(build, replicas, drain_seconds, most_requests).bind(), name=NAME, route_prefix="/")
    log.info("ready", extra={"facts": {"replicas": replicas.least, "port": port}})
    if replicas.address is None:
        _until_signal()
        serve.shutdown()
        ray.shutdown()


def _deployment(
    build: Callable[[], Starlette], replicas: Fleet, drain_seconds: float, most_requests: int
) -> serve.Deployment:
    def application() -> Starlette:  # Ray Serve calls plain functions only
        return build()

    class Replica:
        """One application."""

        async def check_health(self) -> None:
            """Before the first request, and then every few seconds."""
            state: State = self.app.state.serve  # type: ignore[attr-defined]  # from Ray Serve's side of the class
            while state.service is None and state.failure is None:
                await asyncio.sleep(0.05)
            state.ready()

    return serve.deployment(
        serve.ingress(application)(Replica),
        name=NAME,
        max_ongoing_requests=most_requests,
        graceful_shutdown_timeout_s=drain_seconds,
        autoscaling_config={
            "min_replicas": replicas.least,
            "max_replicas": replicas.most,
            "target_ongoing_requests": ONGOING_TARGET,
        },
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
    )


def _until_signal() -> None:
    """Wait for SIGTERM or SIGINT."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
