"""/openapi.json, made from the table of endpoints and their pydantic models: it cannot say what is not served."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from fivefold import __version__
from fivefold.serve.endpoint import Endpoint
from fivefold.serve.schema import ErrorBody

_TEMPLATE = "#/components/schemas/{model}"
_REFUSALS = {
    "400": "The request cannot be served as it is",
    "401": "A key is needed",
    "404": "No such model",
    "408": "The body did not arrive in time",
    "413": "A limit of the server",
    "429": "Too much work waits; see Retry-After",
    "500": "The server failed",
    "503": "Loading or shutting down; see Retry-After",
}
_ERROR = {"schema": {"$ref": _TEMPLATE.format(model="ErrorBody")}}


def document(endpoints: tuple[Endpoint, ...], gets: tuple[tuple[str, str, bool], ...]) -> dict[str, Any]:
    """The OpenAPI 3.1 document; `gets` are (path, summary, public)."""
    requests = list(dict.fromkeys(point.request for point in endpoints))
    _, found = models_json_schema(
        [*((model, "validation") for model in requests), (ErrorBody, "serialization")], ref_template=_TEMPLATE
    )
    schemas: dict[str, Any] = found["$defs"]
    paths: dict[str, dict[str, Any]] = {}
    for path, summary, public in gets:
        paths.setdefault(path.replace(":path", ""), {})["get"] = _get(path, summary, public)
    for point in endpoints:
        operation = _post(point, schemas)
        for path in point.paths:
            paths.setdefault(path, {})["post"] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "fivefold", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _post(point: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = TypeAdapter(point.response).json_schema(ref_template=_TEMPLATE)
    schemas.update(answer.pop("$defs", {}))
    body = {"schema": {"$ref": _TEMPLATE.format(model=point.request.__name__)}}
    return {
        "summary": point.summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": answer}}},
            **_refusals(*_REFUSALS),
        },
    }


def _get(path: str, summary: str, public: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "OK"}}}
    if path in ("/", "/live", "/metrics"):
        pass
    elif public:
        operation["responses"] |= _refusals("503")
    else:
        operation["responses"] |= _refusals("401", "404", "503")
    if public:
        operation["security"] = []
    if "{id" in path:
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation


def _refusals(*statuses: str) -> dict[str, Any]:
    return {s: {"description": _REFUSALS[s], "content": {"application/json": _ERROR}} for s in statuses}
