"""Errors to answers: every kind has its row, every message its bounds, and nothing is told that is not meant to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import CheckpointError, FivefoldError, InputError, NonFiniteError
from fivefold.serve import failures, wire
from fivefold.serve.failures import (
    INTERNAL,
    MAX_MESSAGE,
    AccessError,
    QueueFullError,
    RequestError,
    RouteError,
    ServeError,
    TooLargeError,
    UnavailableError,
)
from fivefold.serve.schema import ErrorBody


def below(kind: type[Exception]) -> Iterator[type[Exception]]:
    """The classes under one, of this package."""
    for child in kind.__subclasses__():
        if child.__module__.startswith("fivefold."):
            yield child
            yield from below(child)


KINDS = sorted({*below(ServeError), *below(InputError), NonFiniteError}, key=lambda kind: kind.__name__)
texts = st.text(st.characters(), max_size=40) | st.text(st.characters(), min_size=1, max_size=3).map(lambda t: t * 700)


def made(kind: type[Exception], message: str) -> Exception:
    """An error of any kind; two want more than a message."""
    more = {RouteError: [404], QueueFullError: [1.0]}
    return kind(message, *next((extra for base, extra in more.items() if issubclass(kind, base)), []))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_refusal_is_an_internal_error(kind: type[Exception]) -> None:
    """A new kind of error that nobody gave a row, nor its parents, would be."""
    error = made(kind, "x")
    assert failures.answer(error) is not INTERNAL
    assert failures.status(error) < 500 or kind in (UnavailableError, NonFiniteError)


def test_the_nearest_kind_decides() -> None:
    class OfOurs(TooLargeError):
        pass

    class OfTwo(UnavailableError, InputError):
        pass

    assert failures.status(OfOurs("")) == 413
    assert failures.status(OfTwo("")) == 503
    assert failures.status(RequestError("")) == 400
    assert failures.status(RouteError("", 405)) == 405
    assert failures.status(CheckpointError("")) == failures.status(KeyError("")) == 500


@given(kind=st.sampled_from(KINDS), message=texts, request_id=st.text(max_size=9))
def test_any_message_is_a_body_that_every_client_can_read(kind: type[Exception], message: str, request_id: str) -> None:
    """It may quote what a caller sent: halves of surrogate pairs, control characters, a book."""
    written = json.loads(wire.dumps(failures.body(made(kind, message), request_id)))
    body = ErrorBody.model_validate(written)
    assert set(written) == set(ErrorBody.model_fields) and set(written["error"]) == set(type(body.error).model_fields)
    assert body.detail[:MAX_MESSAGE] == message[:MAX_MESSAGE] and len(body.detail) <= MAX_MESSAGE + 3
    assert (body.detail == message) == (len(message) <= MAX_MESSAGE)
    assert body.error.message == body.detail and body.request_id == request_id


@given(kind=st.sampled_from([RuntimeError, KeyError, OSError, UnicodeError, Exception]), message=texts)
def test_what_is_not_ours_is_told_by_no_word_of_its_own(kind: type[Exception], message: str) -> None:
    error = kind(message)
    assert failures.body(error, "r") == failures.body(RuntimeError(), "r")
    assert "log" in str(failures.body(error, "r")["detail"])


def test_the_field_to_look_at_is_named_where_it_is_known() -> None:
    for error, param in ((TooLargeError("x", "input"), "input"), (RequestError("x"), None), (FivefoldError("x"), None)):
        assert failures.body(error, "r")["error"]["param"] == param  # type: ignore[index]


@given(st.floats(-1e9, 1e9))
def test_nobody_is_told_to_come_back_too_early_or_at_once(seconds: float) -> None:
    """In whole seconds, as the header has them: a client that reads 0 asks again in a loop."""
    (found,) = failures.headers(QueueFullError("", seconds)).items()
    assert found[0] == "retry-after" and found[1].isdecimal()
    assert int(found[1]) >= 1 and seconds <= int(found[1]) <= max(1, ceil(seconds))


def test_headers_say_what_to_do_next() -> None:
    assert failures.headers(UnavailableError("")) == {"retry-after": "5"}
    assert failures.headers(AccessError("")) == {"www-authenticate": "Bearer"}
    assert failures.headers(RouteError("", 405, {"Allow": "POST"})) == {"Allow": "POST"}
    assert (
        failures.headers(RouteError("", 404)) == failures.headers(InputError("")) == failures.headers(OSError()) == {}
    )
