"""Inputs -> sequences: slices, counting, joining."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.serve.failures import TooLargeError
from fivefold.serve.intake import SLICE_CHARS, SLICE_TEXTS, Input, Intake, _slices, joined
from fivefold.serve.limits import Limits
from tests import toy


@given(st.lists(st.sampled_from([0, 1, 900, SLICE_CHARS // 2, SLICE_CHARS, 2 * SLICE_CHARS]), max_size=40))
def test_slices_cover_every_input_once(sizes: list[int]) -> None:
    inputs = [Input("x" * size) for size in sizes]
    slices = list(_slices(inputs))
    assert [i for start, stop in slices for i in range(start, stop)] == list(range(len(inputs)))
    for start, stop in slices:
        assert stop - start == 1 or sum(sizes[start:stop]) <= SLICE_CHARS


def test_slices_hold_a_bounded_number_of_texts() -> None:
    assert [stop - start for start, stop in _slices([Input("")] * 1500)] == [SLICE_TEXTS, SLICE_TEXTS, 476]


@given(st.lists(st.text(max_size=9), max_size=6))
def test_joined_chunks_lie_where_their_spans_say(chunks: list[str]) -> None:
    document, spans = joined(chunks)
    assert [document[start:stop] for start, stop in spans] == chunks
    between = [document[a:b] for (_, a), (b, _) in zip(spans, spans[1:], strict=False)]
    assert set(between) <= {"", " "}


def test_tokens_of_a_request_are_counted_as_they_come() -> None:
    limits = Limits(max_input_length=64, max_batch_tokens=64, max_queue_tokens=64, max_request_tokens=3000)
    intake = Intake(toy.tokenizer(), limits, threads=1)
    seen: list[int] = []
    tokenized = intake._tokenized

    def counted(inputs: list[Input], *rest: object) -> object:
        seen.append(len(inputs))
        return tokenized(inputs, *rest)  # type: ignore[arg-type]

    intake._tokenized = counted  # type: ignore[assignment, method-assign]
    with pytest.raises(TooLargeError):
        asyncio.run(intake.prepare([Input("fox dog")] * 2000, truncate=False))
    assert len(seen) < 4, "the rest of a request that is too large is not read"
    intake.close()


def test_a_panic_of_a_library_is_an_ordinary_error() -> None:
    intake = Intake(toy.tokenizer(), Limits(64, 64, 64), threads=1)

    class Panic(BaseException):
        pass

    def panics() -> None:
        raise Panic

    with pytest.raises(RuntimeError, match="Panic"):
        asyncio.run(intake.offload(0, panics))
    intake.close()
