"""The scheduler's promises, on a fake backend that can be held, poisoned and made to give NaN."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.errors import NonFiniteError
from fivefold.packing import PackedBatch
from fivefold.sequence import Sequence
from fivefold.serve import scheduler as module
from fivefold.serve.failures import QueueFullError, UnavailableError
from fivefold.serve.metrics import Metrics
from fivefold.serve.scheduler import Job, Pooled, Scheduler, Worker
from tests import toy

POISON, NAN, FLAKY = 7, 8, 9
BUDGET = 16


@dataclass
class Fake:
    """Hidden states are the token ids, twice. Every batch waits until the test lets it go."""

    held: bool = False
    batches: list[tuple[int, ...]] = field(default_factory=list)
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    running: threading.Event = field(default_factory=threading.Event)
    dead: bool = False
    flakes: int = 1

    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        self.batches.append(batch.seqlens)
        self.running.set()
        if self.held:
            assert self.gate.acquire(timeout=20)
        ids = batch.input_ids
        if self.dead or (ids == POISON).any():
            raise RuntimeError("poisoned")
        if (ids == FLAKY).any() and self.flakes:
            self.flakes -= 1
            raise RuntimeError("a cosmic ray")
        hidden = ids[:, None].float().repeat(1, 2)
        return torch.where(hidden == NAN, torch.nan, hidden)


class Exact(Fake):
    """The float32 twin: no NaN."""

    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        self.batches.append(batch.seqlens)
        return batch.input_ids[:, None].float().repeat(1, 2)


def text(length: int, token: int = 1, task: int = -1) -> Sequence:
    return toy.sequence([token] * length, task)


def scheduler(*backends: Fake, exact: Fake | None = None, queue: int = 1000, budget: int = BUDGET) -> Scheduler:
    made = Scheduler(
        [Worker(b, exact) for b in backends],
        text(2),
        max_batch_tokens=budget,
        max_queue_tokens=queue,
        metrics=Metrics(),
    )
    held = [b.held for b in backends]
    for backend in backends:
        backend.held = False
    made.start()
    for backend, was in zip(backends, held, strict=True):
        backend.held = was
        backend.batches.clear()
        backend.running.clear()
    return made


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def start(made: Scheduler, *sequences: Sequence) -> asyncio.Task[Pooled]:
    return asyncio.create_task(made.pooled(list(sequences)))


async def running(backend: Fake) -> None:
    await until(backend.running.is_set)


def test_rows_come_in_the_order_of_the_spans() -> None:
    async def work() -> None:
        made = scheduler(Fake())
        ids = [3, 1, 5, 2, 4] * 9
        sequences = [text(1 + i % 5, token, task=i % 3) for i, token in enumerate(ids)]
        sequences.append(toy.sequence([10, 20, 30, 40], spans=[(0, 1), (1, 4), (2, 3)]))
        found = await made.pooled(sequences)
        assert found.rows.tolist() == [[v, v] for v in [*map(float, ids), 10.0, 30.0, 30.0]]
        assert (await made.pooled([])).rows.size == 0
        await made.close()

    run(work)


def test_batches_keep_to_the_budget_and_mix_clients() -> None:
    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend)
        tasks = [start(made, text(4))]
        await running(backend)
        tasks += [start(made, text(3), text(2)) for _ in range(8)]
        await until(lambda: made.queued_tokens == 40)
        backend.held = False
        backend.gate.release()
        await asyncio.gather(*tasks)
        assert all(sum(batch) <= BUDGET for batch in backend.batches)
        assert len(backend.batches) <= 5
        await made.close()

    run(work)


def test_a_long_sequence_gets_a_batch_of_its_own() -> None:
    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend)
        first = start(made, text(1))
        await running(backend)
        tasks = [start(made, text(50), text(50)), *(start(made, text(10)) for _ in range(6))]
        await until(lambda: made.queued_requests == 7)
        backend.held = False
        backend.gate.release()
        await asyncio.gather(first, *tasks)
        assert (50,) in backend.batches
        assert all(sum(batch) <= BUDGET for batch in backend.batches if batch != (50,))
        await made.close()

    run(work)


def test_a_query_goes_in_the_batch_after_the_running_one() -> None:
    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend, queue=10**6)
        crowd = [start(made, *(text(4) for _ in range(2048))) for _ in range(4)]
        await running(backend)
        query = start(made, text(3))
        await until(lambda: made.queued_requests == 5)
        for _ in range(2):
            backend.gate.release()
        await query
        assert len(backend.batches) <= 3  # the running one, the query's, perhaps the one after
        for task in crowd:
            task.cancel()
        backend.held = False
        backend.gate.release(10)
        await made.close()

    run(work)


def test_a_large_request_is_not_starved_by_a_stream_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch could be filled with queries; the large request still gets most of the tokens."""
    monkeypatch.setattr(module, "BURST", 10**6)

    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend, queue=10**6)
        large = start(made, *(text(4) for _ in range(40)))  # 160 tokens
        await running(backend)
        queries = []
        for _ in range(24):
            queries += [start(made, text(2)) for _ in range(BUDGET // 2)]
            await asyncio.sleep(0)
            before = len(backend.batches)
            backend.gate.release()
            await until(lambda before=before: len(backend.batches) > before)  # type: ignore[misc]
            if large.done():
                break
        assert large.done()
        assert len(backend.batches) <= 4 * 160 // (3 * BUDGET) + 2
        backend.held = False
        backend.gate.release(100)
        await asyncio.gather(*queries)
        await made.close()

    run(work)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=12))
def test_no_request_takes_more_than_twice_its_turn(requests: list[list[int]]) -> None:
    """Cut batches by hand: a request is done when twice the work before it, its own, and a batch have been computed;
    everything is computed exactly once; no batch is empty while something waits."""
    made = Scheduler([Worker(Fake())], text(2), max_batch_tokens=BUDGET, max_queue_tokens=1, metrics=Metrics())
    loop = asyncio.new_event_loop()
    jobs = [Job.of([text(n) for n in lengths], loop.create_future()) for lengths in requests]
    totals = np.cumsum([job.left for job in jobs])
    made._jobs = list(jobs)
    computed, seen = 0, set()
    longest = max(map(max, requests))
    while batch := made._take():
        parts = [(id(part.job), part.number) for part in batch]
        assert not seen.intersection(parts)
        seen.update(parts)
        computed += sum(len(part.sequence) for part in batch)
        for job, before in zip(jobs, totals.tolist(), strict=True):
            if computed > 2 * (before + longest) + 2 * BUDGET:
                assert not job.left
    assert len(seen) == sum(map(len, requests))
    loop.close()


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend, queue=20)
        made.tokens_per_second = 2.0
        tasks = [start(made, text(4))]
        await running(backend)
        tasks += [start(made, text(10)), start(made, text(40))]  # the limit is on what waits before, not on the request
        await until(lambda: made.queued_tokens == 50)
        with pytest.raises(QueueFullError, match="50 tokens wait .* the limit is 40;") as refused:
            await made.pooled([text(40)])  # 20 may wait, or as many as its own
        assert refused.value.retry_after == 5.0
        tasks.append(start(made, text(5)))  # everything there is larger: nothing is before it
        await until(lambda: made.queued_requests == 3)
        backend.held = False
        backend.gate.release()
        await asyncio.gather(*tasks)
        await made.close()

    run(work)


def test_a_burst_is_taken_whole_and_a_lasting_crowd_held_to_its_own_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CROWDED_SECONDS", 1)

    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend, queue=1 << 20)
        tasks = [start(made, text(4))]
        await running(backend)
        tasks += [start(made, text(10)) for _ in range(97)]  # 96 before the last
        await until(lambda: made.queued_requests == 97)
        with pytest.raises(QueueFullError, match="limit is 960"):
            await made.pooled([text(10)])
        for size in (12, 400):
            with pytest.raises(QueueFullError, match=f"974 tokens wait .* the limit is {size // 2};"):
                await made.pooled([text(size)])  # the four that are computed count
        tasks.append(start(made, text(9)))  # smaller than what was refused
        await until(lambda: made.queued_requests == 98)
        await asyncio.sleep(1)
        tasks.append(start(made, text(11)))
        await until(lambda: made.queued_requests == 99)
        backend.held = False
        backend.gate.release()
        await asyncio.gather(*tasks)
        await made.close()

    run(work)


def test_who_left_is_not_computed() -> None:
    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend)
        first = start(made, text(4))
        await running(backend)
        gone, stays = start(made, text(13)), start(made, text(6))
        await until(lambda: made.queued_requests == 2)
        gone.cancel()
        await asyncio.sleep(0)
        backend.held = False
        backend.gate.release()
        await asyncio.gather(first, stays)
        assert backend.batches == [(4,), (6,)]
        await made.close()

    run(work)


def test_a_poisoned_input_fails_alone() -> None:
    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend)
        first = start(made, text(4))
        await running(backend)
        bad = start(made, text(2), text(2, POISON), text(2))
        good = [start(made, text(2, token)) for token in (3, 4)]
        await until(lambda: made.queued_requests == 3)
        backend.held = False
        backend.gate.release()
        with pytest.raises(RuntimeError, match="poisoned"):
            await bad
        assert [(await task).rows[0, 0] for task in good] == [3, 4]
        await first
        assert made.healthy
        assert (await made.pooled([text(2, 5)])).rows[0, 0] == 5
        assert made.metrics.failed_batches._value.get() == 1
        await made.close()

    run(work)


def test_what_fails_once_is_tried_again() -> None:
    async def work() -> None:
        made = scheduler(Fake())
        assert (await made.pooled([text(2, FLAKY), text(3)])).rows[:, 0].tolist() == [FLAKY, 1]
        await made.close()

    run(work)


def test_rows_that_are_not_finite_are_recomputed_in_float32() -> None:
    async def work() -> None:
        exact = Exact()
        made = scheduler(Fake(), exact=exact)
        found = await made.pooled([text(2, 3), text(4, NAN), text(2, 5)])
        assert found.rows[:, 0].tolist() == [3, NAN, 5]
        assert exact.batches == [(4,)]
        assert made.metrics.recomputed._value.get() == 1
        await made.close()

    run(work)


def test_what_stays_not_finite_fails_alone() -> None:
    async def work() -> None:
        made = scheduler(Fake())
        bad, good = start(made, text(2), text(4, NAN)), start(made, text(2, 5))
        with pytest.raises(NonFiniteError, match="input 1"):
            await bad
        assert (await good).rows[0, 0] == 5
        await made.close()

    run(work)


def test_a_dead_model_is_told_and_comes_back() -> None:
    async def work() -> None:
        backend = Fake()
        made = scheduler(backend)
        backend.dead = True
        with pytest.raises(RuntimeError):
            await made.pooled([text(2)])
        await until(lambda: not made.healthy)
        backend.dead = False
        await made.pooled([text(2)])
        await until(lambda: made.healthy)
        with pytest.raises(RuntimeError):
            await made.pooled([text(2, POISON)])
        await asyncio.sleep(0.05)
        assert made.healthy  # the probe tells a bad input from a dead model
        await made.close()

    run(work)


def test_closing_finishes_what_was_accepted() -> None:
    async def work() -> None:
        backend = Fake(held=True)
        made = scheduler(backend)
        tasks = [start(made, text(9, token)) for token in range(1, 6)]
        await running(backend)
        await until(lambda: made.queued_requests == 4)
        closing = asyncio.create_task(made.close())
        await until(lambda: made._closing)
        with pytest.raises(UnavailableError):
            await made.pooled([text(1)])
        backend.held = False
        backend.gate.release()
        assert [r.rows[0, 0] for r in await asyncio.gather(*tasks)] == [1, 2, 3, 4, 5]
        await closing

    run(work)


def test_two_devices_share_the_queue() -> None:
    async def work() -> None:
        left, right = Fake(held=True), Fake(held=True)
        made = scheduler(left, right)
        tasks = [start(made, text(12, token)) for token in (1, 2, 3)]
        await until(lambda: left.running.is_set() and right.running.is_set())
        for backend in (left, right):
            backend.held = False
            backend.gate.release()
        assert [r.rows[0, 0] for r in await asyncio.gather(*tasks)] == [1, 2, 3]
        await made.close()

    run(work)


def test_batches_that_run_together_share_the_cores() -> None:
    """Seen from inside the model: how many threads it may use."""
    threads: list[tuple[int, int]] = []

    class Counting(Fake):
        def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
            threads.append((len(batch.input_ids), torch.get_num_threads()))
            return super().hidden_states(batch)

    async def work() -> None:
        backend = Counting()
        worker = Worker(backend, cores=4)
        made = Scheduler([worker, worker], text(2), max_batch_tokens=600, max_queue_tokens=9999, metrics=Metrics())
        made.start()
        threads.clear()
        for length in (20, 600):
            await made.pooled([text(length)])
            await until(lambda: not made._computing)
        backend.held = True
        both = [start(made, text(500)), start(made, text(501))]
        await until(lambda: len(threads) == 4)
        backend.held = False
        backend.gate.release(2)
        await asyncio.gather(*both)
        await made.close()
        alone, together = threads[:2], {count for _, count in threads[2:]}
        assert alone == [(20, 1), (600, 4)] and together <= {4, 2} and 2 in together

    before = torch.get_num_threads()
    run(work)
    torch.set_num_threads(before)


def test_start_raises_what_the_model_raises() -> None:
    backend = Fake(dead=True)
    made = Scheduler([Worker(backend)], text(2), max_batch_tokens=9, max_queue_tokens=9, metrics=Metrics())
    with pytest.raises(RuntimeError, match="poisoned"):
        made.start()


def test_the_float32_twin_is_the_same_model() -> None:
    embedder = toy.embedder()
    encoder = embedder.backend.encoder.bfloat16()
    twin = Worker.of(embedder.backend, 1)[0].exact
    assert twin is not None
    batch_of = toy.sequence([5, 6, 7])
    from fivefold.packing import pack

    with torch.inference_mode():
        exact, rough = twin.hidden_states(pack([batch_of])), embedder.backend.hidden_states(pack([batch_of]))
    assert exact.dtype == torch.float32
    assert next(encoder.parameters()).dtype == torch.bfloat16
    assert torch.allclose(exact, rough.float(), atol=0.2)
    assert Worker.of(toy.embedder().backend, 1)[0].exact is None
