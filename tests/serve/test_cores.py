"""How batches share the cores."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fivefold.serve.cores import MOST_BATCHES, share
from fivefold.serve.scheduler import Worker
from tests import toy


@given(st.integers(1, 128), st.integers(1, MOST_BATCHES), st.integers(1, 10**6))
def test_batches_never_have_more_threads_than_there_are_cores(cores: int, batches: int, tokens: int) -> None:
    threads = share(cores, batches, tokens)
    assert threads >= 1 and threads * batches <= max(cores, batches)


def test_a_query_has_one_thread_and_a_document_that_is_alone_has_all() -> None:
    assert share(8, 1, 25) == 1 and share(8, 1, 8192) == 8 and share(8, 4, 8192) == 2


def test_the_workers_of_a_cpu_share_its_model_and_its_cores() -> None:
    backend = toy.embedder().backend
    assert [worker.cores for worker in Worker.of(backend, 1)] == [1]
    several = Worker.of(backend, 64)
    assert len(several) == MOST_BATCHES
    assert all(worker.backend is backend and worker.cores == 64 for worker in several)
