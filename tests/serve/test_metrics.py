"""What Prometheus reads: sums that fit what was sent, series that do not grow with what strangers type, no text, no key."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fivefold.serve.metrics import Metrics

KEY = "k3y"
SECRET = "s3cret"


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The page as Prometheus reads it: (name, labels) -> value. A series that comes twice is refused."""
    found = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    read = {(s.name, frozenset(s.labels.items())): s.value for s in found}
    assert len(read) == len(found)
    return read


def ours(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {key: value for key, value in samples(page).items() if key[0].startswith("fivefold_")}


def total(page: str, name: str, **labels: str) -> float:
    """The sum of a name's series that have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, its), value in ours(page).items() if found == f"fivefold_{name}" and wanted <= its)


def wild(word: str) -> list[tuple[str, Any]]:
    """Requests whose every part a stranger may choose; all but the first are refused."""
    return [
        ("/v1/embeddings", {"input": [word, "a fox"], "user": word}),
        ("/v1/embeddings", {"input": "a", "task": word}),
        ("/v1/embeddings", {"input": "a", "model": word}),
        ("/v1/embeddings", {"input": "a", "embedding_type": word}),
        ("/embed", {"inputs": word, "prompt_name": word}),
        ("/" + quote(word), {"inputs": "a"}),
    ]


def test_every_request_is_counted_once_in_each_place(serve: Callable[..., Any]) -> None:
    """And when nobody waits any more, nothing that goes up and down is left standing."""
    server = serve(max_client_batch_size=9)
    sent: Counter[tuple[str, int]] = Counter()
    for path, body in [
        ("/v1/embeddings", {"input": ["a fox"] * 5, "task": "separation"}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": "a fox", "late_chunking": True}),
        ("/v1/embeddings", {"input": ["a"] * 10}),
        ("/embed_all", {"inputs": ["a fox", "der Hund"], "prompt_name": "query"}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
        ("/tokenize", {"inputs": "a"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}),
        ("/v1/rerank", None),
        ("/v1/classify", {"input": "a", "labels": ["b", "c"], "model": "other"}),
    ]:
        sent[path, server.post(path, body).status_code] += 1
    assert set(status for _, status in sent) == {200, 400, 404, 413}
    page = server.get("/metrics").text
    for (path, status), count in sent.items():
        assert total(page, "requests_total", route=path, status=str(status)) == count
    for path in {path for path, _ in sent}:
        assert total(page, "request_seconds_count", route=path) == sum(n for (p, _), n in sent.items() if p == path)
    refused = sum(count for (_, status), count in sent.items() if status != 200)
    assert total(page, "rejections_total") == refused == total(page, "rejections_total", reason="invalid") + 1
    texts = {"separation": 5.0, "none": 1.0, "retrieval.query": 2.0, "text-matching": 2.0}
    assert {task: total(page, "inputs_total", task=task) for task in texts} == texts
    assert total(page, "inputs_total") == sum(texts.values()) == total(page, "batch_sequences_sum")
    assert total(page, "tokens_total") == total(page, "batch_tokens_sum") > 0
    assert (
        total(page, "batch_tokens_count")
        == total(page, "batch_seconds_count")
        == total(page, "queue_seconds_count")
        == 4
    )
    for name in ("queue_tokens", "queue_requests", "failed_batches_total", "recomputed_total", "clients_left_total"):
        assert total(page, name) == 0
    assert total(page, "requests_in_flight") == 1  # the one that asks


def test_whatever_strangers_type_makes_no_series_and_is_in_none(
    serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor in a line of the log, but for the request's id, which is theirs."""
    caplog.set_level(logging.DEBUG, "fivefold.serve")
    server = serve(keys=(KEY,))

    def after(word: str) -> str:
        for path, body in wild(word):
            headers = {"authorization": f"Bearer {KEY}", "x-request-id": "r1"}
            server.post(path, content=json.dumps(body).encode(), headers=headers)
            server.post(path, body, headers={"authorization": f"Bearer {quote(word)}"})
        return str(server.get("/metrics").text)

    first, second = after(SECRET), after(SECRET + '\n"} 1')
    assert set(ours(first)) == set(ours(second))
    assert SECRET not in second and KEY not in second
    assert caplog.records and all(SECRET not in str(vars(r)) and KEY not in str(vars(r)) for r in caplog.records)


def test_the_queue_is_read_when_somebody_looks() -> None:
    metrics, depth = Metrics(), [3, 2]
    metrics.watch_queue(lambda: depth[0], lambda: depth[1])
    for tokens, requests in ((3, 2), (70, 5), (0, 0)):
        depth[:] = tokens, requests
        page = metrics.page().decode()
        assert (total(page, "queue_tokens"), total(page, "queue_requests")) == (tokens, requests)


def test_naming_again_what_has_counted_sets_nothing_back() -> None:
    """Replicas name their tasks when they have loaded, and requests were refused before."""
    metrics = Metrics()
    metrics.requests.labels("/embed", "200").inc()
    metrics.inputs.labels("none").inc(4)
    before = ours(metrics.page().decode())
    metrics.name_routes(["/embed", "/tokenize"])
    metrics.name_tasks(["none", "separation"])
    after = ours(metrics.page().decode())
    assert all(after[key] == value for key, value in before.items() if not key[0].endswith("_created"))
    assert {value for key, value in after.items() if key not in before and not key[0].endswith("_created")} == {0.0}


def test_servers_in_one_process_count_by_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.left.inc()
    assert total(one.page().decode(), "clients_left_total") == 1
    assert total(other.page().decode(), "clients_left_total") == 0
