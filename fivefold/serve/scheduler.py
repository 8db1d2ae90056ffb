"""The queue in front of the model. Knows tokens and arrival times; knows neither text nor the wire.

Requests are lists of sequences, cost is counted in tokens, and a batch is whatever waits, from any number of clients and
tasks, up to a budget of tokens. There is no delay to let batches fill: while one is computed, the next one gathers.

Four promises, each held by a test:

1. **Fair.** Three quarters of the tokens go to the requests that came first, the rest to those with least left to do. So a
   single query waits for the batch that is running and goes in the next, whatever a client with 2048 texts is doing; and
   no request takes more than about twice what first-come-first-served would give it, whatever comes after it.
2. **Refused early.** A request is told at once that it has to come back (`QueueFullError`), by the work it would wait for:
   that of the requests with no more left than it has. A burst is taken whole: `BURST` times the request's own tokens may
   wait, `max_queue_tokens` at most. After a refusal, for `CROWDED_SECONDS`, requests of that size and larger ones are
   let in only where half their own tokens wait or are computed: a load that lasts costs refusals, not waiting.
3. **Nobody pays for another's failure.** A batch that fails is tried again, each sequence alone; rows that are not finite are
   computed again in float32. What still fails, fails alone. Every waiter is answered.
4. **Who left costs nothing.** A request whose client is gone is dropped before its tokens are computed.

Shapes: S spans of one request, D hidden.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from fivefold import memory
from fivefold.embedder import Backend, TorchBackend
from fivefold.errors import NonFiniteError
from fivefold.packing import PackedBatch, pack, plan
from fivefold.pooling import pool
from fivefold.sequence import Sequence
from fivefold.serve import cores
from fivefold.serve.failures import QueueFullError, UnavailableError
from fivefold.serve.metrics import Metrics
from fivefold.vectors import FloatArray

BURST = 96
"""Requests that may ask at one time, each as large as the others, and none is refused."""
CROWDED_SECONDS = 30
RELEASE_SECONDS = 2
"""After so long a worker gives the memory back that its batches left unused."""
CLOSE_SECONDS = 60
"""A device that does not come back does not keep the process from ending."""
_MEMORY = 0.8  # how much of the measured speed is kept at each batch

log = logging.getLogger("fivefold.serve")


class Worker(NamedTuple):
    """One batch at a time: a backend and, where its precision is less than float32, the same model in float32.

    On a CPU the workers have one backend and `cores` cores together; 0 leaves threads to torch.
    """

    backend: Backend
    exact: Backend | None = None
    cores: int = 0

    @classmethod
    def of(cls, backend: Backend, threads: int) -> list[Worker]:
        """The workers of one device: several where it is a CPU of several `threads`."""
        exact = None
        if not isinstance(backend, TorchBackend):
            return [cls(backend)]
        if next(backend.encoder.parameters()).dtype != torch.float32:
            exact = Float32Twin(backend)
        if backend.device.type != "cpu":
            return [cls(backend, exact)]
        return [cls(backend, exact, threads)] * min(threads, cores.MOST_BATCHES)


class Float32Twin:
    """The encoder of a backend in float32, made when it is first needed."""

    def __init__(self, backend: TorchBackend) -> None:
        self._original = backend
        self._twin: TorchBackend | None = None
        self._making = threading.Lock()

    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        """Hidden states [T, D] float32."""
        with self._making:
            if self._twin is None:
                self._twin = TorchBackend(deepcopy(self._original.encoder).float(), self._original.device)
        return self._twin.hidden_states(batch)


@dataclass(frozen=True, slots=True)
class Pooled:
    """The rows [S, D] float32 of a request, and where its time went."""

    rows: FloatArray
    queue_seconds: float
    compute_seconds: float


@dataclass(eq=False, slots=True)
class Job:
    """One request in the queue. The first `taken` sequences are in a batch or done; `left` are the tokens of the rest."""

    sequences: list[Sequence]
    future: asyncio.Future[Pooled]
    tokens: int
    left: int
    unfinished: int
    ends: list[int]  # row after the last one of each sequence
    arrived: float = field(default_factory=time.monotonic)
    taken: int = 0
    started: float | None = None
    rows: FloatArray | None = None
    failed: bool = False

    @classmethod
    def of(cls, sequences: list[Sequence], future: asyncio.Future[Pooled]) -> Job:
        """A job with nothing done."""
        ends = np.cumsum([len(s.spans) for s in sequences]).tolist()
        tokens = sum(map(len, sequences))
        return cls(sequences, future, tokens, tokens, len(sequences), ends)

    @property
    def next_length(self) -> int:
        """Tokens of the next sequence."""
        return len(self.sequences[self.taken])


@dataclass(slots=True)
class Crowd:
    """The smallest request, in tokens, that was refused in the last `CROWDED_SECONDS`. Smaller ones had room."""

    tokens: int = 0
    until: float = 0.0

    def holds(self, tokens: int) -> bool:
        """Whether requests of this size are too many."""
        return time.monotonic() < self.until and tokens >= self.tokens

    def note(self, tokens: int) -> None:
        """A request of this size was refused."""
        now = time.monotonic()
        self.tokens = min(self.tokens, tokens) if now < self.until else tokens
        self.until = now + CROWDED_SECONDS


class Part(NamedTuple):
    """One sequence of a job, by its number."""

    job: Job
    number: int

    @property
    def sequence(self) -> Sequence:
        """The sequence itself."""
        return self.job.sequences[self.number]


@dataclass(slots=True)
class Batch:
    """Sequences for one forward pass, at most `budget` tokens; a longer sequence gets one of its own."""

    budget: int
    parts: list[Part] = field(default_factory=list)
    tokens: int = 0

    def fill(self, job: Job, allowance: int) -> int:
        """Take a job's next sequences while they fit, no more than `allowance` tokens; the tokens taken."""
        before = self.tokens
        while job.left:
            length = job.next_length
            fits = self.tokens + length <= self.budget or not self.parts
            if not fits or self.tokens - before + length > allowance:
                break
            self.parts.append(Part(job, job.taken))
            self.tokens += length
            job.taken += 1
            job.left -= length
        return self.tokens - before


class Scheduler:
    """One queue, one thread for each worker."""

    def __init__(
        self, workers: list[Worker], probe: Sequence, *, max_batch_tokens: int, max_queue_tokens: int, metrics: Metrics
    ) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.max_queue_tokens = max_queue_tokens
        self.metrics = metrics
        self.healthy = True
        self.tokens_per_second = 0.0
        self._probe = probe
        self._workers = workers
        self._jobs: list[Job] = []  # with sequences not yet taken, in the order of arrival
        self._computing: list[list[Part]] = []
        self._credit = 0  # tokens that the requests that came first may still have
        self._crowd = Crowd()
        self._closing = False
        self._wake = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), name=f"fivefold-compute-{i}", daemon=True)
            for i, worker in enumerate(workers)
        ]

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait and are not in a batch yet."""
        return sum(job.left for job in tuple(self._jobs))

    @property
    def queued_requests(self) -> int:
        """Requests with tokens that wait."""
        return len(self._jobs)

    def start(self) -> None:
        """Warm the workers with the probe, measure their speed, start their threads. Raises what the model raises."""
        memory.map_large_blocks()
        for worker in self._workers:
            for _ in range(2):  # the first pass allocates, the second is measured
                begun = time.perf_counter()
                _pooled(worker.backend, [self._probe])
                seconds = time.perf_counter() - begun
            self.tokens_per_second += len(self._probe) / seconds
        for thread in self._threads:
            thread.start()

    async def pooled(self, sequences: list[Sequence]) -> Pooled:
        """Every span of the sequences, pooled, in order: the one way in. To cancel it is to leave the queue.

        Raises:
            QueueFullError: too much work is before it.
            UnavailableError: the scheduler is closing.
            NonFiniteError, or what the model raised: for a sequence of this request, alone and in float32.
        """
        job = Job.of(sequences, asyncio.get_running_loop().create_future())
        if not sequences:
            return Pooled(np.empty((0, 0), dtype=np.float32), 0.0, 0.0)
        with self._wake:
            self._admit(job)
            self._jobs.append(job)
            self._wake.notify()
        return await job.future

    async def close(self) -> None:
        """Compute what was accepted, accept nothing more, end the threads."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                await asyncio.to_thread(thread.join, CLOSE_SECONDS)

    def _admit(self, job: Job) -> None:
        if self._closing:
            raise UnavailableError("the server is shutting down; send the request to another one")
        size = max(
            job.left, self.max_batch_tokens // 32
        )  # smaller ones are alike: the model needs hardly longer for two
        ahead = sum(other.left for other in self._jobs if other.left <= size and not other.future.done())
        if self._crowd.holds(size):
            ahead += sum(len(part.sequence) for batch in self._computing for part in batch if part.job.tokens <= size)
            room = size // 2
        else:
            burst = max(BURST * job.left, self.max_batch_tokens)
            room = max(size, min(self.max_queue_tokens, burst))
        if ahead > room:
            self._crowd.note(size)
            wait = (ahead - room) / max(self.tokens_per_second, 1.0)
            raise QueueFullError(
                f"{ahead} tokens wait before this request of {job.left}, the limit is {room}; try again in "
                f"{max(1, round(wait))} s",
                wait,
            )

    # ---- cutting batches; under the lock

    def _next_batch(self) -> list[Part]:
        """Wait for work and cut a batch from it; empty when the scheduler has closed."""
        with self._wake:
            while not (batch := self._take()) and not self._closing:
                self._wake.wait()
            if batch:
                self._computing.append(batch)
            return batch

    def _take(self) -> list[Part]:
        """Three quarters of the budget by arrival, the rest by what is left to do."""
        self._jobs = [job for job in self._jobs if job.left and not job.future.done()]
        if not self._jobs:
            return []
        batch = Batch(self.max_batch_tokens)
        # What the oldest could not use is kept for its next sequence: one longer than half a batch gets its turn too.
        self._credit = min(self._credit, self._jobs[0].next_length) + self.max_batch_tokens * 3 // 4
        for job in self._jobs:
            self._credit -= batch.fill(job, self._credit)
            if job.left:
                break
        for job in sorted(self._jobs, key=lambda job: job.left):
            batch.fill(job, self.max_batch_tokens)
        if not batch.parts:  # all that waits is longer than a batch
            shortest = min(self._jobs, key=lambda job: job.left)
            batch.fill(shortest, shortest.next_length)
        self._jobs = [job for job in self._jobs if job.left]
        return batch.parts

    # ---- computing; on a worker's thread

    def _run(self, worker: Worker) -> None:
        released = time.monotonic()
        while batch := self._next_batch():
            try:
                self._compute(worker, batch)
            except BaseException as error:  # a bug of ours: the thread must live and the waiters must hear of it
                log.exception("the scheduler failed")
                for part in batch:
                    self._fail(part.job, error)
            with self._wake:
                self._computing.remove(batch)
            if time.monotonic() - released > RELEASE_SECONDS:
                memory.give_back()
                released = time.monotonic()

    def _compute(self, worker: Worker, batch: list[Part]) -> None:
        begun, tokens, busy = time.monotonic(), sum(len(part.sequence) for part in batch), len(self._computing)
        for part in batch:
            if part.job.started is None:
                part.job.started = begun
                self.metrics.queue_seconds.observe(begun - part.job.arrived)
        self.metrics.tokens.inc(tokens)
        self.metrics.batch_tokens.observe(tokens)
        self.metrics.batch_sequences.observe(len(batch))
        if worker.cores:
            torch.set_num_threads(cores.share(worker.cores, busy, tokens))
        done = None
        try:
            done = self._try(worker, batch)
        except Exception as error:
            log.warning("a batch of %d sequences failed (%s); each is tried alone", len(batch), type(error).__name__)
            self.metrics.failed_batches.inc()
        if done is None:  # out of the except block, whose trace keeps the batch's memory alive
            done = sum(self._try_alone(worker, part) for part in batch)
        seconds = time.monotonic() - begun
        self.metrics.batch_seconds.observe(seconds)
        speed = busy * tokens / max(seconds, 1e-6)
        self.tokens_per_second = _MEMORY * self.tokens_per_second + (1 - _MEMORY) * speed
        self.healthy = done > 0 or self._probe_answers(worker)

    def _try(self, worker: Worker, batch: list[Part]) -> int:
        """One pass over the batch; the number of sequences that were answered. Raises what the model raises."""
        rows = _pooled(worker.backend, [part.sequence for part in batch])
        done = 0
        for part, own in zip(batch, rows, strict=True):
            if np.isfinite(own).all():
                self._put(part, own)
                done += 1
            else:
                done += self._recompute(worker, part)
        return done

    def _try_alone(self, worker: Worker, part: Part) -> int:
        if part.job.failed or part.job.future.done():
            return 0
        try:
            return self._try(worker, [part])
        except Exception as error:
            log.warning("a sequence of %d tokens failed alone", len(part.sequence), exc_info=error)
            self._fail(part.job, error)
            return 0

    def _recompute(self, worker: Worker, part: Part) -> int:
        """One sequence in float32, after its rows were not finite."""
        self.metrics.recomputed.inc()
        rows = None
        if worker.exact is not None:
            try:
                rows = _pooled(worker.exact, [part.sequence])[0]
            except Exception:
                log.exception("recomputing in float32 failed")
        if rows is not None and np.isfinite(rows).all():
            self._put(part, rows)
            return 1
        self._fail(
            part.job,
            NonFiniteError(f"the model gave NaN or infinity for input {part.number}, also in float32; leave it out"),
        )
        return 0

    def _probe_answers(self, worker: Worker) -> bool:
        """After a batch without a single row: is it the input or the model?"""
        try:
            return bool(np.isfinite(_pooled(worker.backend, [self._probe])[0]).all())
        except Exception:
            log.exception("the model does not answer")
            return False

    # ---- answering

    def _put(self, part: Part, rows: FloatArray) -> None:
        job = part.job
        with self._wake:
            if job.rows is None:
                job.rows = np.empty((job.ends[-1], rows.shape[1]), dtype=np.float32)
            job.rows[job.ends[part.number] - len(rows) : job.ends[part.number]] = rows
            job.unfinished -= 1
            if job.unfinished:
                return
        now, started = time.monotonic(), job.started or job.arrived
        found = Pooled(job.rows, started - job.arrived, now - started)
        _settle(job.future, lambda: job.future.set_result(found))

    def _fail(self, job: Job, error: BaseException) -> None:
        with self._wake:
            job.failed, job.left = True, 0  # what still waits is dropped
        _settle(job.future, lambda: job.future.set_exception(error))


def _settle(future: asyncio.Future[Pooled], act: Callable[[], None]) -> None:
    """Answer on the future's own loop; a client that left, or a loop that closed, needs no answer."""

    def settle() -> None:
        if not future.done():
            act()

    loop = future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)


@torch.inference_mode()
def _pooled(backend: Backend, sequences: list[Sequence]) -> list[FloatArray]:
    """The rows [spans, D] of each sequence from one forward pass."""
    (order,) = plan(sequences, sum(map(len, sequences)))
    batch = pack([sequences[i] for i in order])
    rows: FloatArray = pool(backend.hidden_states(batch), batch.spans).cpu().numpy()
    ends = np.cumsum([len(sequences[i].spans) for i in order])[:-1]
    by_number = dict(zip(order, np.split(rows, ends), strict=True))
    return [by_number[i] for i in range(len(sequences))]
