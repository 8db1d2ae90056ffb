"""Vectors and JSON as bytes."""

from __future__ import annotations

import contextlib
import gc
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fivefold.errors import InputError
from fivefold.serve import wire
from fivefold.vectors import from_base64

rows = npst.arrays(
    np.float32,
    st.tuples(st.integers(0, 70), st.integers(1, 9)),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(rows)
def test_floats_and_base64_give_the_same_numbers_back(vectors: np.ndarray) -> None:
    floats = [json.loads(value) for value in wire.values(vectors, "float")]
    assert np.array_equal(np.array(floats, dtype=np.float32).reshape(vectors.shape), vectors)
    for value, row in zip(wire.values(vectors, "base64"), vectors, strict=True):
        assert np.array_equal(from_base64(json.loads(value)), row)


@given(rows)
def test_a_list_of_encodings_is_an_object(vectors: np.ndarray) -> None:
    both = [json.loads(value) for value in wire.values(vectors, ["ubinary", "float"])]
    assert [row["ubinary"] for row in both] == [json.loads(value) for value in wire.values(vectors, "ubinary")]
    assert all(list(row) == ["ubinary", "float"] for row in both) and len(both) == len(vectors)


def test_rows_of_a_view_are_written_as_they_are() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (vectors[:, :2], vectors[::-1], vectors.T):
        assert [json.loads(value) for value in wire.values(view, "float")] == view.tolist()
        assert [from_base64(json.loads(v)).tolist() for v in wire.values(view, "base64")] == view.tolist()


def test_unknown_encodings_are_named() -> None:
    with pytest.raises(InputError, match="embedding_type 'int4'"):
        wire.check_encodings(["float", "int4"], "embedding_type")


@pytest.mark.parametrize("body", [b"", b"NaN", b'["\\ud800", NaN]', b'["\\ud800", Infinity]', b"[" * 2000, b"\xff"])
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(ValueError):
        wire.loads(body)


@given(st.recursive(st.none() | st.integers(-(2**53), 2**53) | st.text(st.characters()), st.lists, max_leaves=9))
def test_whatever_python_writes_is_read_and_written(value: object) -> None:
    assert wire.loads(json.dumps(value).encode()) == value
    assert json.loads(wire.dumps(value)) == value


def test_the_collector_is_on_again_after_every_parse() -> None:
    """It rests while a body is parsed, whatever comes of it."""
    for body in (b"[1]", b"[", b'"\\ud800"', b'["\\ud800"', b"\xff"):
        with contextlib.suppress(ValueError):
            wire.loads(body)
        assert gc.isenabled()
