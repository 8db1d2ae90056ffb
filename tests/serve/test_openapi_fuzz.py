"""Requests made from /openapi.json against the real process: every answer is one that the document promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from fivefold.serve.app import ENDPOINTS
from fivefold.serve.routes.operations import GETS
from tests.serve.process import Process

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
pytestmark = pytest.mark.fuzz

READ = [("GET", path.replace(":path", "")) for path, *_ in GETS]
WRITE = [("POST", path) for point in ENDPOINTS for path in point.paths]
CASES = [
    *((*o, True) for o in READ + WRITE),
    *((*o, False) for o in WRITE),
]  # a GET takes nothing that could be invalid
EXAMPLES = 200


@pytest.fixture(scope="module")
def document(tiny_folder: Path) -> Iterator[Any]:
    process = Process(tiny_folder, "--log-level", "error").ready()
    found = schemathesis.openapi.from_url(process.url + "/openapi.json")
    yield found
    assert httpx.post(process.url + "/embed", json={"inputs": "a fox"}).status_code == 200
    status, out = process.stop()
    assert status == 0 and "Traceback" not in out, out


def test_the_document_lists_what_is_attacked(document: Any) -> None:
    assert {(o.ok().method.upper(), o.ok().path) for o in document.get_all_operations()} == {*READ, *WRITE}


@pytest.mark.parametrize(("method", "path", "valid"), CASES)
def test_every_answer_is_as_promised(document: Any, method: str, path: str, valid: bool) -> None:
    """No 5xx; status, type and body as documented. Whether bad data is refused is not asked: unknown fields are ignored, and a
    valid name may be of a model that is not here."""
    operation = document[path][method]
    mode = schemathesis.GenerationMode.POSITIVE if valid else schemathesis.GenerationMode.NEGATIVE
    asked = [
        schemathesis.checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate])
    @given(case=operation.as_strategy(generation_mode=mode))
    def attack(case: Any) -> None:
        case.call_and_validate(checks=asked, timeout=20)

    attack()
