"""Bodies to checked requests: whatever comes, one error that names the field and repeats nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fivefold.serve.app import ENDPOINTS
from fivefold.serve.endpoint import parsed
from fivefold.serve.failures import RequestError
from fivefold.serve.schema import ClassifyRequest, EmbeddingsRequest, RerankRequest, SimilarityRequest

SECRET = "s3cret"
MODELS = sorted({point.request for point in ENDPOINTS}, key=lambda model: model.__name__)
FIELDS = sorted({name for model in MODELS for name in model.model_fields} | {"text", "source_sentence", "sentences"})

leaves = st.just(SECRET) | st.none() | st.booleans() | st.integers(-2, 3)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, SECRET]), inner, max_size=3),
    max_leaves=5,
)
fields = {name: st.just("a") | values for name in FIELDS}


def refused(model: type[BaseModel], body: Any) -> RequestError:
    with pytest.raises(RequestError) as found:
        parsed(model, body if isinstance(body, bytes) else json.dumps(body).encode())
    return found.value


@given(model=st.sampled_from(MODELS), body=st.fixed_dictionaries({}, optional=fields))
def test_a_complaint_names_a_field_of_the_request_and_repeats_nothing(model: type[BaseModel], body: Any) -> None:
    try:
        parsed(model, json.dumps(body).encode())
    except RequestError as error:
        assert SECRET not in str(error)
        assert error.param is None or error.param in model.model_fields
        assert str(error).startswith(f"{error.param or 'body'}")


@given(
    model=st.sampled_from(MODELS),
    body=st.binary(max_size=30)
    | st.builds(lambda b: b'{"input": "a", "x": "' + b + b'\\ud800"}', st.binary(max_size=9)),
)
def test_any_bytes_are_a_request_or_a_refusal(model: type[BaseModel], body: bytes) -> None:
    try:
        assert isinstance(parsed(model, body), model)
    except RequestError as error:
        assert str(error)


def test_where_it_is_wrong_is_told_down_to_the_item() -> None:
    inside = refused(SimilarityRequest, {"inputs": {"source_sentence": "a", "sentences": ["b", 3]}})
    assert str(inside).startswith("inputs.sentences.1: ") and inside.param == "inputs"
    item = refused(RerankRequest, {"query": "a", "documents": ["b", 3]})
    assert str(item) == 'documents: item 1 must be a string or {"text": ...}' and item.param == "documents"
    missing = refused(EmbeddingsRequest, {"model": "tiny"})
    assert "input" in str(missing) and "required" in str(missing)
    labels = refused(ClassifyRequest, {"input": "a", "labels": []})
    assert str(labels) == "labels: must hold at least one label, in every group" and labels.param == "labels"


@pytest.mark.parametrize(
    ("body", "what"), [(b"[]", "list"), (b'"a"', "str"), (b"null", "NoneType"), (b"3", "int"), (b"", "not JSON")]
)
def test_what_is_no_object_is_told_as_what_it_is(body: bytes, what: str) -> None:
    assert what in str(refused(EmbeddingsRequest, body))
