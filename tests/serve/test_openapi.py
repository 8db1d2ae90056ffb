"""/openapi.json against what it is made from and what it promises: statuses, keys, bounds, input of every form."""

from __future__ import annotations

from typing import Any

import pytest

from fivefold.serve.app import ENDPOINTS, PUBLIC
from fivefold.serve.failures import ANSWERS, INTERNAL
from fivefold.serve.openapi import document
from fivefold.serve.routes.operations import GETS
from fivefold.serve.schema import INPUT_SCHEMA


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return document(ENDPOINTS, tuple((path, text, public) for path, _, public, text in GETS))


def test_every_status_of_a_refusal_is_promised(page: dict[str, Any]) -> None:
    known = {str(row.status) for row in (*ANSWERS.values(), INTERNAL)}
    for point in ENDPOINTS:
        for path in point.paths:
            assert set(page["paths"][path]["post"]["responses"]) == {"200", *known}


def test_what_needs_no_key_is_what_the_gate_lets_in(page: dict[str, Any]) -> None:
    """A page says so itself; all others have the document's own word, which is a key where the server has any."""
    assert page["security"] == [{"key": []}, {}]
    for path, item in page["paths"].items():
        for method, operation in item.items():
            assert (operation.get("security") == []) == (method == "get" and path in PUBLIC), path


def test_a_body_of_each_route_is_its_own_model_with_its_bounds(page: dict[str, Any]) -> None:
    schemas = page["components"]["schemas"]
    for point in ENDPOINTS:
        content = page["paths"][point.paths[0]]["post"]["requestBody"]["content"]["application/json"]
        found = schemas[content["schema"]["$ref"].rsplit("/", 1)[1]]["properties"]
        assert set(found) == set(point.request.model_fields)
        for name in {"input", "inputs"} & set(found):
            assert "$ref" in found[name] or found[name].items() >= INPUT_SCHEMA.items()
    for model, option in (("RerankRequest", "top_n"), ("SegmentRequest", "chunk_tokens")):
        assert {"type": "integer", "minimum": 1} in schemas[model]["properties"][option]["anyOf"]
