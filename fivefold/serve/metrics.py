"""What Prometheus sees. Every series is there from the start, at zero; nothing in it holds a text or a key."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REJECTIONS = ("queue_full", "concurrency", "too_large", "unauthorized", "invalid", "unavailable", "timeout")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKENS = tuple(4**n for n in range(1, 10))
_SEQUENCES = tuple(2**n for n in range(12))


class Metrics:
    """The series of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("fivefold_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "fivefold_request_seconds", "From the request's first byte to the answer.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.rejections = Counter("fivefold_rejections", "Requests refused.", ["reason"], registry=registry)
        self.left = Counter("fivefold_clients_left", "Requests whose client did not wait.", registry=registry)
        self.in_flight = Gauge("fivefold_requests_in_flight", "Requests being answered.", registry=registry)
        self.inputs = Counter("fivefold_inputs", "Texts read, by task.", ["task"], registry=registry)
        self.tokens = Counter("fivefold_tokens", "Tokens computed.", registry=registry)
        self.queue_tokens = Gauge("fivefold_queue_tokens", "Tokens waiting for the model.", registry=registry)
        self.queue_requests = Gauge("fivefold_queue_requests", "Requests waiting for the model.", registry=registry)
        self.queue_seconds = Histogram(
            "fivefold_queue_seconds",
            "Waiting of a request before its first batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_tokens = Histogram("fivefold_batch_tokens", "Tokens of a batch.", buckets=_TOKENS, registry=registry)
        self.batch_sequences = Histogram(
            "fivefold_batch_sequences", "Sequences of a batch.", buckets=_SEQUENCES, registry=registry
        )
        self.batch_seconds = Histogram(
            "fivefold_batch_seconds", "Time of a batch in the model.", buckets=_SECONDS, registry=registry
        )
        self.failed_batches = Counter("fivefold_failed_batches", "Batches tried again one by one.", registry=registry)
        self.recomputed = Counter(
            "fivefold_recomputed", "Sequences recomputed in float32 after NaN or infinity.", registry=registry
        )
        self.ready = Gauge("fivefold_ready", "1 when requests are served.", registry=registry)
        self.build = Gauge("fivefold_build_info", "Always 1.", ["version", "model"], registry=registry)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        for reason in REJECTIONS:
            self.rejections.labels(reason)

    def watch_queue(self, tokens: Callable[[], int], requests: Callable[[], int]) -> None:
        """Read the queue's depth whenever somebody looks, so that it is never stale."""
        self.queue_tokens.set_function(tokens)
        self.queue_requests.set_function(requests)

    def name_routes(self, routes: list[str]) -> None:
        """Zero-valued series for every route."""
        for route in routes:
            self.requests.labels(route, "200")
            self.seconds.labels(route)

    def name_tasks(self, tasks: list[str]) -> None:
        """Zero-valued series for every task."""
        for task in tasks:
            self.inputs.labels(task)

    def page(self) -> bytes:
        """The text Prometheus reads."""
        return generate_latest(self.registry)
