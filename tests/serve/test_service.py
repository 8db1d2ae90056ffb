"""One model at work: names, whose task an input has, rows to vectors, and calls that are left or come together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fivefold import Embedder
from fivefold.errors import InputError, UnknownTaskError
from fivefold.packing import PackedBatch
from fivefold.serve.failures import MAX_MESSAGE, RequestError, TooLargeError, UnavailableError, UnknownModelError
from fivefold.serve.intake import Input
from fivefold.serve.limits import Limits
from fivefold.serve.metrics import Metrics
from fivefold.serve.service import _INLINE, Names, Service, _formed
from tests import toy


class Held:
    """A backend whose batches wait until it is let go."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.go, self.begun = backend, threading.Event(), threading.Event()
        self.go.set()

    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        self.begun.set()
        assert self.go.wait(20)
        hidden: torch.Tensor = self.backend.hidden_states(batch)
        return hidden


@pytest.fixture
def begin() -> Iterator[Callable[..., Service]]:
    """Starts services, which end with the test."""
    started: list[Service] = []

    def start(embedder: Embedder | None = None, **limits: int) -> Service:
        values = {"max_input_length": 64, "max_batch_tokens": 256, "max_queue_tokens": 4096, **limits}
        made = embedder or toy.embedder()
        started.append(Service.start([made], names=Names("toy"), limits=Limits(**values), metrics=Metrics()))
        return started[-1]

    yield start
    for service in started:
        asyncio.run(service.close())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def inputs(*texts: str, task: str | None = None) -> list[Input]:
    return [Input(text, task) for text in texts]


def counted(service: Service) -> dict[str, float]:
    """Texts by task, of the tasks that had any."""
    (family,) = [f for f in service.metrics.registry.collect() if f.name == "fivefold_inputs"]
    return {s.labels["task"]: s.value for s in family.samples if s.name.endswith("_total") and s.value}


# names


def test_a_model_of_another_name_is_told_which_is_here_and_who_can_change_it() -> None:
    names = Names("house", ("other",))
    for asked in (None, "", "default", "default/not-specified", "house", "other"):
        names.check(asked)
    for asked in ("House", "hous", "house ", "*", "None"):
        with pytest.raises(UnknownModelError, match="use 'house' or leave it out.*--served-model-name") as refused:
            names.check(asked)
        assert repr(asked) in str(refused.value) and refused.value.param == "model"
    with pytest.raises(UnknownModelError) as refused:
        names.check("long" * 1000)
    assert "use 'house'" in str(refused.value)[:MAX_MESSAGE], "cut off before its advice"
    for asked in ("anything", "*", "\ud800"):
        Names("house", ("other", "*")).check(asked)


@pytest.mark.parametrize("name", ["half a pair \ud800", "two\nlines", "nul \0"])
def test_a_name_that_no_answer_could_hold_is_refused_at_the_start(name: str) -> None:
    """/metrics failed for good, since its labels are text."""
    for names in ((name, ()), ("house", ("other", name))):
        with pytest.raises(InputError, match="--served-model-name"):
            Names(*names)


# tasks


@given(
    own=st.lists(st.sampled_from([None, "", "separation", "query"]), max_size=5),
    asked=st.sampled_from([None, "", "classification", "passage"]),
    each=st.booleans(),
)
def test_an_inputs_own_task_comes_before_the_requests(own: list[str | None], asked: str | None, each: bool) -> None:
    """None and '' are no word on it."""
    given_inputs = [Input(f"text {n}", name) for n, name in enumerate(own)]
    found = PLAIN.with_tasks(given_inputs, [asked] * len(own) if each else asked)
    named = {None: None, "": None, "query": "retrieval.query", "passage": "retrieval.passage"}
    assert [item.task for item in found] == [named.get(name or asked, name or asked) for name in own]
    assert [item.content for item in found] == [item.content for item in given_inputs]


def bare(embedder: Embedder) -> Service:
    """A service that computes nothing: what it knows of its model needs no threads."""
    return Service(Names("toy"), embedder, None, None, Limits(64, 256, 4096), Metrics())  # type: ignore[arg-type]


PLAIN = bare(toy.embedder())


def test_tasks_that_do_not_fit_are_refused_before_anything_is_read() -> None:
    for tasks in ([], ["separation"], ["separation"] * 3):
        with pytest.raises(RequestError, match=f"2 inputs but {len(tasks)} tasks; send one") as refused:
            PLAIN.with_tasks(inputs("a", "b"), tasks)
        assert refused.value.param == "task"
    with pytest.raises(UnknownTaskError, match="unknown task 'web'.*retrieval.query"):
        PLAIN.with_tasks([Input("a"), Input("b", "web")], "separation")


def test_a_task_of_the_models_own_is_not_taken_for_another_name_of_one() -> None:
    """Who adds an adapter called 'query' means that one."""
    tasks = ("retrieval.query", "query", "passage")
    service = bare(toy.embedder(toy.config(lora_adaptations=tasks, task_instructions={})))
    assert [service.task(name) for name in tasks] == list(tasks)
    with pytest.raises(UnknownTaskError):
        service.task("document")  # an alias of what this model has not
    with pytest.raises(UnknownTaskError, match="no adapters"):
        bare(toy.embedder(toy.config(lora_adaptations=(), task_instructions={}))).task("query")


# rows to vectors


@given(order=st.integers(1, 12).flatmap(lambda n: st.permutations(range(n))), dims=st.integers(1, 4))
def test_rows_go_where_they_belong(order: list[int], dims: int) -> None:
    """`order` says where in the answer each row of the model goes."""
    rows = np.random.default_rng(len(order)).normal(size=(len(order), 4)).astype(np.float32)
    found = _formed(rows, order, dims, False)
    for row, place in zip(rows, order, strict=True):
        assert (found[place] == row[:dims]).all()
    unit = _formed(rows, order, dims, True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    assert (np.sign(unit) == np.sign(found)).all()


def test_no_input_is_no_row_of_the_right_width(begin: Callable[..., Service]) -> None:
    service = begin()
    for found in (run(service.embed([], dimensions=8)), run(service.embed_late([], windows=False, dimensions=8))):
        assert found.vectors.shape == (0, 8) and (found.tokens, found.inputs) == (0, 0)
    assert run(service.embed_tokens([], truncate=False, from_left=False)) == []
    assert counted(service) == {}


def test_tokens_of_one_answer_are_bounded_and_counted_as_texts(begin: Callable[..., Service]) -> None:
    """A state for each token is a hundred times a vector's answer; the bound is reached, not passed."""
    embedder = toy.embedder()
    texts = ["a fox", "", "der Hund", "fox dog river bank over the lazy dog"]
    lengths = [len(embedder.tokenizer.tokens(text, None).input_ids) for text in texts]
    service, narrow = (begin(embedder, max_input_length=sum(lengths) - n) for n in (0, 1))
    rows = run(service.embed_tokens(inputs(*texts), truncate=False, from_left=False))
    assert [len(part) for part in rows] == lengths
    assert counted(service) == {"none": 4.0}
    with pytest.raises(TooLargeError, match=f"{sum(lengths)} tokens.*limit is {sum(lengths) - 1} ") as refused:
        run(narrow.embed_tokens(inputs(*texts), truncate=False, from_left=False))
    assert refused.value.param == "inputs"
    assert counted(narrow) == {}, "what is refused was not read"


def test_who_leaves_is_not_counted_and_leaves_nothing_behind(begin: Callable[..., Service]) -> None:
    embedder = toy.embedder()
    held = Held(embedder.backend)
    service = begin(Embedder(held, embedder.tokenizer, model_name="toy", max_batch_tokens=256))
    held.go.clear()
    held.begun.clear()

    async def scene() -> None:
        calls = [asyncio.create_task(service.embed(inputs("a fox", "der Hund")))]
        assert await asyncio.to_thread(held.begun.wait, 10)
        calls += [asyncio.create_task(service.embed(inputs("a fox"))) for _ in range(3)]
        while service.scheduler.queued_requests < 3:
            await asyncio.sleep(0.001)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls[1:], return_exceptions=True)
        held.go.set()
        assert (await calls[0]).inputs == 2
        assert (await service.embed(inputs("a fox"))).inputs == 1
        assert (service.scheduler.queued_requests, service.scheduler.queued_tokens) == (0, 0)

    run(scene())
    assert counted(service) == {"none": 3.0}


def test_after_the_end_nobody_waits_for_an_answer(begin: Callable[..., Service]) -> None:
    """What is tokenised when the queue has closed is told to go elsewhere."""
    service = begin()

    async def scene() -> None:
        await service.scheduler.close()
        with pytest.raises(UnavailableError, match="another one"):
            await service.embed(inputs("a fox"))

    run(scene())


def test_little_work_is_done_at_once_and_much_elsewhere(begin: Callable[..., Service]) -> None:
    """A hop to another thread costs more than a few numbers; many would keep the event loop from everybody."""
    service = begin()

    async def thread(size: int) -> str:
        return await service.offload(size, lambda: threading.current_thread().name)

    assert run(thread(_INLINE)) == threading.current_thread().name
    assert run(thread(_INLINE + 1)).startswith("fivefold-tokenize")
