"""One model at work: from checked requests to vectors. Knows the model and its queue; knows nothing of HTTP."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import numpy as np

from fivefold import __version__
from fivefold.embedder import Embedder
from fivefold.errors import DimensionError, InputError
from fivefold.serve.failures import RequestError, TooLargeError, UnknownModelError
from fivefold.serve.intake import Input, Intake, Prepared
from fivefold.serve.limits import Limits
from fivefold.serve.metrics import Metrics
from fivefold.serve.scheduler import Scheduler, Worker
from fivefold.vectors import FloatArray, cut, normalize

P = ParamSpec("P")
R = TypeVar("R")

PROBE_TEXT = "The server warms the model with a sentence like any other."
TASK_ALIASES = {"query": "retrieval.query", "passage": "retrieval.passage", "document": "retrieval.passage"}
"""Names that TEI's `prompt_name` and sentence-transformers have for two of the tasks."""
_INLINE = 1 << 14  # numbers that are cheaper to turn into text than to hand to another thread


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors [S, d] float32 in the order asked for, and what they cost."""

    vectors: FloatArray
    tokens: int
    inputs: int
    queue_seconds: float
    compute_seconds: float


ANY_NAME = "*"
_SAID = 100
"""Characters of a wrong name that are said again; the advice comes after it."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the model is called: the name in answers, and others that requests may use; "*" takes any."""

    served: str
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that no answer could hold."""
        for name in (self.served, *self.others):
            if not name.isprintable():  # half a surrogate pair is not, nor is a line break
                raise InputError(f"{name!r} cannot be a model's name in answers; give --served-model-name plain text")

    def check(self, asked: str | None) -> None:
        """Refuse a model that is not this one; none, "default" and its kin are this one."""
        known = ("", "default", "default/not-specified", self.served, *self.others)
        if asked is not None and asked not in known and ANY_NAME not in self.others:
            raise UnknownModelError(
                f"model {asked[:_SAID]!r} is not served here; use {self.served!r} or leave it out. The server's "
                "--served-model-name gives it more names",
                "model",
            )


@dataclass(frozen=True, slots=True)
class Service:
    """The model, its queue, its limits and its counters. Make one with `Service.start`."""

    names: Names
    embedder: Embedder
    intake: Intake
    scheduler: Scheduler
    limits: Limits
    metrics: Metrics
    auto_truncate: bool = False
    tokenization_workers: int = 2
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def start(
        cls,
        embedders: list[Embedder],
        *,
        names: Names,
        limits: Limits,
        metrics: Metrics,
        auto_truncate: bool = False,
        tokenization_workers: int = 2,
        threads: int = 1,
    ) -> Service:
        """Warm the model on every device and start its threads.

        Args:
            embedders: the same model, one a device.
            threads: cores that a CPU may compute on.
        """
        first = embedders[0]
        (probe,), _ = first.tokenizer.sequences([PROBE_TEXT], [None], max_length=limits.max_input_length, truncate=True)
        scheduler = Scheduler(
            [worker for e in embedders for worker in Worker.of(e.backend, threads)],
            probe,
            max_batch_tokens=limits.max_batch_tokens,
            max_queue_tokens=limits.max_queue_tokens,
            metrics=metrics,
        )
        intake = Intake(first.tokenizer, limits, threads=tokenization_workers)
        scheduler.start()
        metrics.build.labels(__version__, names.served).set(1)
        metrics.watch_queue(lambda: scheduler.queued_tokens, lambda: scheduler.queued_requests)
        metrics.name_tasks([task or "none" for task in (None, *first.tasks)])
        return cls(names, first, intake, scheduler, limits, metrics, auto_truncate, tokenization_workers)

    async def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        await self.scheduler.close()
        self.intake.close()

    def task(self, name: str | None) -> str | None:
        """A checked task name, the model's own before an alias; raises UnknownTaskError."""
        found = (name if name in self.embedder.tasks else TASK_ALIASES.get(name, name)) if name else None
        self.embedder.config.task_id(found)
        return found

    def with_tasks(self, inputs: list[Input], task: str | list[str | None] | None) -> list[Input]:
        """Inputs with checked tasks: their own, else that of the request (one for all, or one for each)."""
        if isinstance(task, list) and len(task) != len(inputs):
            raise RequestError(f"{len(inputs)} inputs but {len(task)} tasks; send one task, or one for each", "task")
        tasks = task if isinstance(task, list) else [task] * len(inputs)
        chosen = [item.task or name for item, name in zip(inputs, tasks, strict=True)]
        checked = {name: self.task(name) for name in set(chosen)}
        return [Input(item.content, checked[name]) for item, name in zip(inputs, chosen, strict=True)]

    def dimensions(self, asked: int | None) -> int:
        """The dimensions to keep."""
        full = self.embedder.dimensions
        if asked is None:
            return full
        if not 1 <= asked <= full:
            raise DimensionError(f"dimensions must be from 1 to {full}, got {asked}")
        return asked

    async def embed(
        self,
        inputs: list[Input],
        *,
        dimensions: int | None = None,
        normalized: bool = True,
        truncate: bool = False,
        from_left: bool = False,
    ) -> Embedded:
        """One vector for each input, whose tasks are checked."""
        dims = self.dimensions(dimensions)
        prepared = await self.intake.prepare(inputs, truncate=truncate, from_left=from_left)
        return await self._computed(prepared, inputs, dims, normalized)

    async def embed_late(
        self, inputs: list[Input], *, windows: bool, dimensions: int | None = None, normalized: bool = True
    ) -> Embedded:
        """Late chunking: the inputs are read as one text, one vector for each."""
        dims = self.dimensions(dimensions)
        tasks = {item.task for item in inputs}
        if len(tasks) > 1:
            raise RequestError("with late_chunking all inputs are one text and have one task", "task")
        prepared = await self.intake.prepare_late(inputs, task=next(iter(tasks), None), windows=windows)
        return await self._computed(prepared, inputs, dims, normalized)

    async def embed_tokens(self, inputs: list[Input], *, truncate: bool, from_left: bool) -> list[FloatArray]:
        """The hidden states [L, D] of each input, special tokens and prompt included, as TEI has them."""
        prepared = await self.intake.prepare(inputs, truncate=truncate, from_left=from_left)
        lengths = [len(s) for s in prepared.sequences]
        if sum(lengths) > self.limits.max_input_length:
            raise TooLargeError(
                f"a vector for each of {sum(lengths)} tokens is too much for one answer; the limit is "
                f"{self.limits.max_input_length} tokens in all",
                "inputs",
            )
        found = await self.scheduler.pooled(self.intake.every_token(prepared.sequences))
        self._count(inputs)
        return np.split(found.rows, np.cumsum(lengths)[:-1]) if lengths else []

    async def offload(self, size: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Work on `size` numbers: here if it is little, else away from the event loop."""
        if size <= _INLINE:
            return work(*args, **kwargs)
        return await self.intake.offload(0, work, *args, **kwargs)

    async def _computed(self, prepared: Prepared, inputs: list[Input], dims: int, normalized: bool) -> Embedded:
        pooled = await self.scheduler.pooled(prepared.sequences)
        rows = pooled.rows
        if not len(rows):
            rows = np.empty((0, self.embedder.dimensions), dtype=np.float32)
        vectors = await self.offload(rows.size, _formed, rows, prepared.order, dims, normalized)
        self._count(inputs)
        return Embedded(vectors, prepared.tokens, len(inputs), pooled.queue_seconds, pooled.compute_seconds)

    def _count(self, inputs: list[Input]) -> None:
        for task, count in Counter(item.task or "none" for item in inputs).items():
            self.metrics.inputs.labels(task).inc(count)


def _formed(rows: FloatArray, order: list[int] | None, dims: int, normalized: bool) -> FloatArray:
    """Rows in the order of the inputs, cut, then normalised."""
    ordered = rows if order is None else rows[np.argsort(order, kind="stable")]
    kept = cut(ordered, dims)
    return normalize(kept) if normalized else kept
