"""Every status and its body, keys, limits, clients that leave, drain, metrics, the OpenAPI page, wild input."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from typing import Any

import httpx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fivefold.embedder import Embedder
from fivefold.packing import PackedBatch
from fivefold.serve import wire
from fivefold.serve.app import ENDPOINTS
from fivefold.serve.failures import AccessError
from fivefold.serve.gate import Keys
from fivefold.serve.routes.operations import GETS
from fivefold.serve.server import JsonLines

POSTS = [path for point in ENDPOINTS for path in point.paths]
ONE = {"input": "a fox"}


def is_error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The one error body, with all that any client looks for."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.content))
    body: dict[str, Any] = answer.json()
    assert isinstance(body["detail"], str) and body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == body["detail"]
    assert isinstance(body["error"]["type"], str) and isinstance(body["error_type"], str)
    return body


class Slow:
    """A backend that waits until it is let go."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.go, self.begun = backend, threading.Event(), threading.Event()
        self.go.set()
        self.calls = 0

    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        self.calls += 1
        self.begun.set()
        assert self.go.wait(20)
        hidden: torch.Tensor = self.backend.hidden_states(batch)
        return hidden


@pytest.fixture
def slow(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Slow:
    backend = Slow(embedder.backend)
    monkeypatch.setattr(embedder, "backend", backend)
    return backend


def in_background(server: Any, path: str, body: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(server._client.post(path, json=body), server._loop)


def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


# bodies that are no requests


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"input": NaN}', b'{"input":' * 5000, b"[" * 100_000, b"{}"],
    ids=range(10),
)
def test_bodies_that_are_no_requests(server, path: str, content: bytes) -> None:
    is_error(server.post(path, content=content), 400)


def test_deep_and_huge_values_are_refused(server) -> None:
    deep = '{"input": "\\ud800", "x": ' + "[" * 50_000 + "]" * 50_000 + "}"
    is_error(server.post("/v1/embeddings", content=deep.encode()), 400)
    is_error(server.post("/v1/embeddings", content=b'{"input": "a", "dimensions": 1' + b"0" * 5000 + b"}"), 400)
    is_error(server.post("/v1/embeddings", content=b'{"input": "\\ud800", "dimensions": ' + b"1" * 5000 + b"}"), 400)
    is_error(server.post("/v1/embeddings", {"input": "a", "task": "x" * 100_000}), 400)
    body = is_error(server.post("/v1/embeddings", content=b'{"input": "a", "task": "\\ud800"}'), 400)
    assert len(body["detail"]) < 1100


def test_a_body_without_a_content_type_is_json(server) -> None:
    assert server.post("/v1/embeddings", content=json.dumps(ONE)).status_code == 200
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert server.post("/v1/embeddings", content=json.dumps(ONE), headers=form).status_code == 200


def test_messages_do_not_repeat_texts(server) -> None:
    body = is_error(server.post("/v1/embeddings", {"input": [{"text": None, "secret": "s3cret"}]}), 400)
    assert "s3cret" not in json.dumps(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({name for point in ENDPOINTS for name in point.request.model_fields} | {"text", "x"})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), body=st.dictionaries(st.sampled_from(FIELDS), values, max_size=6) | values)
def test_whatever_is_sent_the_answer_is_no_failure_of_ours(server, path: str, body: Any) -> None:
    answer = server.post(path, content=json.dumps(body).encode())
    assert answer.status_code in (200, 400, 404, 413), answer.text
    if answer.status_code != 200:
        is_error(answer, answer.status_code)


texts = st.text(st.characters(), max_size=60) | st.text(st.characters(categories=["Cs", "Cc", "Zs"]), max_size=9)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_texts=st.lists(texts, max_size=4), late=st.booleans())
def test_any_text_can_be_embedded(server, given_texts: list[str], late: bool) -> None:
    body = {"input": given_texts, "truncate": True, "late_chunking": late}
    answer = server.post("/v1/embeddings", content=json.dumps(body).encode())
    assert answer.status_code in ((200, 400) if late else (200,)), answer.text


# routes


def test_unknown_paths_and_methods(server) -> None:
    is_error(server.get("/nothing"), 404)
    is_error(server.post("/nothing", ONE), 404)
    answer = server.get("/v1/embeddings")
    is_error(answer, 405)
    assert "POST" in answer.headers["allow"]
    is_error(server.request("DELETE", "/v1/models"), 405)
    is_error(server.get("/v1/models/other"), 404)


@pytest.mark.parametrize("path", [path for path, *_ in GETS if "{" not in path])
def test_every_get_answers(server, path: str) -> None:
    answer = server.get(path)
    assert answer.status_code == 200 and answer.content


def test_models(server) -> None:
    listed = server.get("/v1/models").json()
    (model,) = listed["data"]
    assert listed["object"] == "list" and model["id"] == "tiny" and model["object"] == "model"
    assert isinstance(model["created"], int) and model["stats"]["queue_absolute"] == 0
    assert server.get("/v1/models/tiny").json() == model
    assert server.get("/v1/models/jina-embeddings-v3").json() == model
    assert server.get("/models").json()["data"] == [{**model, "owned_by": "infinity"}]


def test_openapi_names_every_route(server) -> None:
    page = server.get("/openapi.json").json()
    assert {path for path, item in page["paths"].items() if "post" in item} == set(POSTS)
    assert {path for path, item in page["paths"].items() if "get" in item} == {
        path.replace(":path", "") for path, *_ in GETS
    }
    text = json.dumps(page)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}:
        assert reference in page["components"]["schemas"]


def test_request_ids(server) -> None:
    assert server.get("/live", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = {server.get("/live", headers={"x-request-id": given}).headers["x-request-id"] for given in ("", "x" * 200)}
    assert len(made) == 2 and all(len(one) == 32 for one in made)
    # httpx does not send such headers; a client without manners does
    strange = server.get("/live", headers=[(b"x-request-id", "é".encode("latin-1"))]).headers["x-request-id"]
    assert len(strange) == 32


# keys and browsers


def test_keys(serve) -> None:
    server = serve(keys=("one", "zwei-ü"))
    answer = server.post("/v1/embeddings", ONE)
    assert is_error(answer, 401)["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer", "Bearer ", "Bearer none", "Basic one", "one", "Bearer one two", "Bearer None"):
        is_error(server.post("/v1/embeddings", ONE, headers={"authorization": wrong}), 401)
    for right in (b"Bearer one", b"bearer one", "Bearer zwei-ü".encode()):
        headers = [(b"authorization", right)]
        assert server.request("POST", "/v1/embeddings", json=ONE, headers=headers).status_code == 200, right
    for path, _, public, _ in GETS:
        if "{" not in path:
            assert (server.get(path).status_code == 200) == public, path
    is_error(server.get("/info"), 401)
    is_error(server.get("/nothing"), 401)
    is_error(server.post("/", {"inputs": "a"}), 401)


def test_keys_are_not_kept() -> None:
    keys = Keys(["s3cret"])
    assert "s3cret" not in repr(vars(keys))
    with pytest.raises(AccessError) as refused:
        keys.check("Bearer wr0ng")
    assert "wr0ng" not in str(refused.value)


def test_browsers_may_call_from_named_pages_only(serve) -> None:
    server = serve(cors_origins=["https://page.example"])
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = server.request("OPTIONS", "/v1/embeddings", headers={"origin": "https://page.example", **asks})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"
    other = server.post("/v1/embeddings", ONE, headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    error = server.post("/v1/embeddings", {}, headers={"origin": "https://page.example"})
    assert error.headers["access-control-allow-origin"] == "https://page.example"


# limits


def test_limits_of_one_request(serve) -> None:
    server = serve(max_client_batch_size=3, max_request_tokens=40, max_body_bytes=2000)
    assert server.post("/v1/embeddings", {"input": ["a"] * 3}).status_code == 200
    is_error(server.post("/v1/embeddings", {"input": ["a"] * 4}), 413)
    is_error(server.post("/v1/embeddings", {"input": ["a"] * 4, "late_chunking": True}), 413)
    is_error(server.post("/tokenize", {"inputs": ["a"] * 4}), 413)
    is_error(server.post("/v1/embeddings", {"input": ["fox dog river " * 5] * 2}), 413)
    is_error(server.post("/v1/embeddings", {"input": "x" * 2001}), 413)
    info = server.get("/info").json()
    assert (info["max_client_batch_size"], info["max_request_tokens"], info["max_body_bytes"]) == (3, 40, 2000)
    assert server.state.body_bytes == 0


def test_a_body_without_a_length_is_counted_as_it_comes(serve) -> None:
    server = serve(max_body_bytes=1000)

    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 100

    is_error(server.run(server._client.post("/v1/embeddings", content=chunks())), 413)


def test_a_body_that_does_not_come(serve) -> None:
    server = serve(body_seconds=1)

    async def stalls() -> Any:
        yield b"{"
        await asyncio.sleep(5)

    is_error(server.run(server._client.post("/v1/embeddings", content=stalls())), 408)


def test_too_many_requests_at_once(serve, slow: Slow) -> None:
    server = serve(max_concurrent_requests=2)
    slow.go.clear()
    waiting = [in_background(server, "/v1/embeddings", ONE) for _ in range(2)]
    until(lambda: server.state.in_flight == 2)
    refused = server.post("/v1/embeddings", ONE)
    is_error(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert server.get("/live").status_code == 200
    slow.go.set()
    assert [one.result(20).status_code for one in waiting] == [200, 200]
    assert server.post("/v1/embeddings", ONE).status_code == 200


def test_a_full_queue(serve, slow: Slow) -> None:
    server = serve(max_queue_tokens=4)
    slow.go.clear()
    slow.begun.clear()
    waiting = [in_background(server, "/v1/embeddings", ONE)]
    assert slow.begun.wait(10)
    answers = [in_background(server, "/v1/embeddings", ONE) for _ in range(10)]
    until(lambda: sum(one.done() for one in answers) >= 5)
    refused = next(one.result() for one in answers if one.done())
    assert is_error(refused, 429)["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after"]) >= 1
    assert server.get("/ready").status_code == 200
    slow.go.set()
    statuses = [one.result(20).status_code for one in [*waiting, *answers]]
    assert set(statuses) == {200, 429}
    assert 'fivefold_rejections_total{reason="queue_full"}' in server.get("/metrics").text


# life


def test_loading_and_a_model_that_does_not_load(serve) -> None:
    server = serve(load=False)
    assert server.get("/live").status_code == 200
    for path in ("/ready", "/health", "/v1/models", "/info"):
        answer = server.get(path)
        is_error(answer, 503)
        assert answer.headers["retry-after"]
    is_error(server.post("/v1/embeddings", ONE), 503)
    assert "fivefold_ready 0.0" in server.get("/metrics").text
    server.state.failure = RuntimeError("no such file /secret")
    assert "secret" not in is_error(server.get("/ready"), 503)["detail"]


def test_draining_refuses_new_work_and_finishes_the_old(serve, slow: Slow) -> None:
    server = serve()
    slow.go.clear()
    slow.begun.clear()
    accepted = in_background(server, "/v1/embeddings", ONE)
    assert slow.begun.wait(10)
    server.state.draining = True
    is_error(server.get("/ready"), 503)
    refused = server.post("/v1/embeddings", ONE)
    is_error(refused, 503)
    assert refused.headers["connection"] == "close"
    assert server.get("/live").status_code == 200
    slow.go.set()
    assert accepted.result(20).status_code == 200


def test_a_client_that_leaves_costs_nothing(serve, slow: Slow) -> None:
    """Its tokens are dropped from the queue before they are computed."""
    server = serve()
    slow.go.clear()
    slow.begun.clear()
    first = in_background(server, "/v1/embeddings", ONE)
    assert slow.begun.wait(10)
    left = asyncio.Event()
    body = json.dumps({"input": "gone"}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": [], "query_string": b""}
    gone = asyncio.run_coroutine_threadsafe(server.app(scope, receive, send), server._loop)
    scheduler = server.state.service.scheduler
    until(lambda: scheduler.queued_requests == 1)
    server._loop.call_soon_threadsafe(left.set)
    gone.result(10)
    calls = slow.calls
    slow.go.set()
    assert first.result(20).status_code == 200
    assert server.post("/v1/embeddings", ONE).status_code == 200
    assert slow.calls == calls + 1 and not sent
    page = server.get("/metrics").text
    assert "fivefold_clients_left_total 1.0" in page and 'status="499"' in page
    assert server.state.in_flight == 0


def test_a_failing_model_is_told_as_500_without_its_message(serve, slow: Slow) -> None:
    server = serve()

    def broken(batch: PackedBatch) -> torch.Tensor:
        raise RuntimeError("CUDA error at /secret")

    whole, slow.backend = slow.backend, type("Broken", (), {"hidden_states": staticmethod(broken)})()
    body = is_error(server.post("/v1/embeddings", ONE), 500)
    assert "secret" not in json.dumps(body)
    until(lambda: server.get("/ready").status_code == 503)
    slow.backend = whole
    assert server.post("/v1/embeddings", ONE).status_code == 200
    until(lambda: server.get("/ready").status_code == 200)


# what operators see


def test_metrics_are_there_from_the_start(serve) -> None:
    server = serve()
    page = server.get("/metrics").text
    for line in (
        'fivefold_requests_total{route="/v1/embeddings",status="200"} 0.0',
        'fivefold_request_seconds_count{route="/embed"} 0.0',
        'fivefold_rejections_total{reason="queue_full"} 0.0',
        'fivefold_inputs_total{task="retrieval.query"} 0.0',
        "fivefold_tokens_total 0.0",
        "fivefold_queue_tokens 0.0",
        "fivefold_batch_tokens_count 0.0",
        "fivefold_ready 1.0",
    ):
        assert line in page, line
    server.post("/v1/embeddings", {"input": ["a", "b"], "task": "retrieval.query"})
    server.post("/v1/embeddings", {})
    page = server.get("/metrics").text
    for line in (
        'fivefold_requests_total{route="/v1/embeddings",status="200"} 1.0',
        'fivefold_requests_total{route="/v1/embeddings",status="400"} 1.0',
        'fivefold_inputs_total{task="retrieval.query"} 2.0',
        'fivefold_rejections_total{reason="invalid"} 1.0',
        "fivefold_batch_tokens_count 1.0",
    ):
        assert line in page, line


def test_the_log_has_a_line_for_each_request_and_no_texts(server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fivefold.serve"):
        server.post("/v1/embeddings", {"input": ["a s3cret text"]}, headers={"x-request-id": "r1"})
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    (line,) = [line for line in lines if line["message"] == "request"]
    assert line["request_id"] == "r1" and line["status"] == 200 and line["route"] == "/v1/embeddings"
    assert line["inputs"] == 1 and line["tokens"] > 2 and line["total_ms"] > 0
    assert "s3cret" not in json.dumps(lines)


WRONG = [1] * 300_000


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/classify", {"input": "a", "labels": WRONG}, "labels"),
        ("/v1/classify", {"input": "a", "labels": {str(n): 1 for n in WRONG} | {"b": WRONG}}, "labels"),
        ("/v1/classify", {"input": "a", "labels": "a"}, "labels"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": WRONG}}, "inputs"),
        ("/v1/embeddings", {"input": "a", "task": WRONG}, "task"),
        ("/v1/embeddings", {"input": "a", "embedding_type": WRONG}, "embedding_type"),
        ("/v1/rerank", {"query": "a", "documents": WRONG}, "documents"),
    ],
)
def test_of_many_wrong_items_the_first_is_named(server, path, body, param) -> None:
    """A complaint about each would be a hundred times the body: 32 MB of them ended the process."""
    begun = time.perf_counter()
    assert is_error(server.post(path, body), 400)["error"]["param"] == param
    assert time.perf_counter() - begun < 5


def test_large_bodies_are_parsed_away_from_the_event_loop(server, monkeypatch) -> None:
    threads: list[str] = []
    parse = wire.loads
    monkeypatch.setattr(wire, "loads", lambda body: threads.append(threading.current_thread().name) or parse(body))
    for words in (1, 20_000):
        is_error(server.post("/embed", {"inputs": "fox " * words, "dimensions": 99}), 400)
    assert ["long" in name for name in threads] == [False, True]
