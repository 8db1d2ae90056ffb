"""Requests as pydantic models: what the document calls an input is one, forms that mean the same, advice that helps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fivefold.serve.schema import (
    INPUT_SCHEMA,
    ClassifyRequest,
    EmbeddingsRequest,
    EmbedRequest,
    RerankRequest,
    SegmentRequest,
    inputs_of,
)

KINDS = {"string": str, "object": dict, "array": list, "null": type(None)}

leaves = st.none() | st.booleans() | st.integers(0, 9) | st.just(0.5) | st.text(max_size=3)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "task", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ids = st.lists(st.integers(0, 9), min_size=1, max_size=3)
items = st.text(max_size=3) | st.fixed_dictionaries(
    {"text": st.text(max_size=3)}, optional={"task": st.none() | st.text()}
)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """JSON Schema, as much of it as the document's inputs need."""
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if schema["type"] == "integer":
        return isinstance(value, int) and not isinstance(value, bool) and value >= schema["minimum"]
    if not isinstance(value, KINDS[schema["type"]]):
        return False
    if isinstance(value, dict):
        given = [fits(value[name], inner) for name, inner in schema["properties"].items() if name in value]
        return all(given) and set(schema["required"]) <= set(value)
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(fits(item, schema["items"]) for item in value)
    return True


def taken(value: Any) -> bool:
    try:
        inputs_of(value)
    except ValueError:
        return False
    return True


def told(model: type[BaseModel], **fields: Any) -> str:
    """The first complaint about a request."""
    with pytest.raises(ValidationError) as refused:
        model.model_validate(fields)
    return str(refused.value.errors()[0]["msg"])


# inputs


@given(
    values
    | st.lists(items | ids | values, max_size=3)
    | items
    | st.lists(st.integers(0, 9) | st.booleans(), max_size=2)
)
def test_an_input_is_what_the_document_calls_one(value: Any) -> None:
    assert taken(value) == fits(value, INPUT_SCHEMA)


@given(st.lists(items | ids, max_size=4))
def test_a_list_is_its_items_one_by_one(given_items: list[Any]) -> None:
    found = inputs_of(given_items)
    assert found == [one for item in given_items for one in inputs_of(item)]
    assert inputs_of(found) == found, "what is parsed already stays as it is"


@given(
    before=st.lists(items, max_size=5),
    wrong=values.filter(lambda v: not taken([v])),
    after=st.lists(values, max_size=3),
)
def test_the_first_wrong_item_is_named_by_its_number(before: list[Any], wrong: Any, after: list[Any]) -> None:
    listed = [*before, wrong, *after]
    if not taken(listed):  # else the list is ids altogether
        with pytest.raises(ValueError, match=f"^item {len(before)} "):
            inputs_of(listed)


def test_a_task_that_is_no_name_is_not_blamed_on_the_text() -> None:
    with pytest.raises(ValueError, match="item 1 .*'task'.*name one"):
        inputs_of(["a", {"text": "a", "task": 3}])
    with pytest.raises(ValueError, match="^it .*'text'; only text"):
        inputs_of({"image": "x", "task": 3})


# advice: who follows it must not be refused by the next complaint


def test_a_query_is_asked_for_as_one_text_and_documents_as_texts() -> None:
    """Neither may be ids, nor a list of lists, which inputs may."""
    for query in (3, ["a"], [1, 2], None):
        message = told(RerankRequest, query=query, documents=[])
        assert "string" in message and "list" not in message
    for wrong in (3, [1, 2], ["a"], None):
        message = told(RerankRequest, query="q", documents=["a", wrong])
        assert "item 1 " in message and "string" in message and "ids" not in message
    assert "list of strings" in told(RerankRequest, query="q", documents="a")
    found = RerankRequest.model_validate({"query": {"text": "q"}, "documents": ["a", {"text": "b", "task": None}]})
    assert (found.query, found.documents) == ("q", ["a", "b"])


# options


@pytest.mark.parametrize(
    ("model", "option", "rest"),
    [
        (EmbeddingsRequest, "dimensions", {"input": "a"}),
        (EmbedRequest, "dimensions", {"inputs": "a"}),
        (RerankRequest, "top_n", {"query": "a", "documents": []}),
        (SegmentRequest, "chunk_tokens", {"content": "a"}),
    ],
)
def test_true_is_no_number(model: type[BaseModel], option: str, rest: dict[str, Any]) -> None:
    """As 1 it would give other vectors, of one dimension; clients that send 8.0 mean 8."""
    assert "integer" in told(model, **rest, **{option: True})
    assert "integer" in told(model, **rest, **{option: False})
    assert getattr(model.model_validate({**rest, option: 8.0}), option) == 8
    assert getattr(model.model_validate({**rest, option: None}), option) is None


@given(st.lists(st.sampled_from(["float", "base64", "int8"]), min_size=1, max_size=9))
def test_an_encoding_asked_for_again_is_given_once(names: list[str]) -> None:
    """The answer is an object keyed by them; a list of a million would be an answer of gigabytes."""
    for field in ("embedding_type", "encoding_type"):
        found = EmbeddingsRequest.model_validate({"input": "a", field: names}).encoding
        assert isinstance(found, list) and set(found) == set(names) and len(found) == len(set(names))
        assert found == sorted(found, key=names.index)


def test_labels_are_groups_and_none_is_empty() -> None:
    plain = ClassifyRequest.model_validate({"input": "a", "labels": ["x", "y"]})
    named = ClassifyRequest.model_validate({"input": "a", "labels": {"": ["x", "y"], "tone": ["z"]}})
    assert plain.groups == {"": ["x", "y"]} and named.groups == {"": ["x", "y"], "tone": ["z"]}
    for labels in ([], {}, {"tone": ["z"], "topic": []}):
        assert "at least one label, in every group" in told(ClassifyRequest, input="a", labels=labels)
    for labels in (3, "x", [["x"]], {"tone": "z"}, {"tone": ["z", None]}):
        assert "list of strings, or an object of such lists" in told(ClassifyRequest, input="a", labels=labels)
