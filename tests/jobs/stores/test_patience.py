"""Failures that may pass are tried again, others are told at once; of Pinecone, through its client."""

from __future__ import annotations

import pytest

from fivefold import StoreError

pytestmark = pytest.mark.stores
pytest.importorskip("tenacity")

from fivefold.jobs.origin import prepare  # noqa: E402
from fivefold.jobs.stores import open_store, patience  # noqa: E402
from tests.jobs.stores.pinecone_contract import KEY, Pinecone, serving  # noqa: E402
from tests.jobs.stores.things import DIMENSIONS, ORIGIN, SCHEMA, rows  # noqa: E402


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.01)


def test_what_may_pass_is_tried_again() -> None:
    calls: list[int] = []

    def action() -> str:
        calls.append(1)
        if len(calls) < 4:
            raise OSError("gone")
        return "done"

    patient = patience.Patience("the store", (OSError, ValueError), lambda error: isinstance(error, OSError))
    assert patient.call(action) == "done" and len(calls) == 4


def test_what_will_not_pass_is_told_at_once() -> None:
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        raise ValueError("no such\n column")

    patient = patience.Patience("the store", (OSError, ValueError), lambda error: isinstance(error, OSError))
    with pytest.raises(StoreError, match="^the store: no such column$"):
        patient.call(action)
    assert len(calls) == 1


def test_patience_ends() -> None:
    def action() -> None:
        raise OSError("gone")

    patient = patience.Patience("the store", (OSError,), lambda error: True)
    with pytest.raises(StoreError, match="tried again for 0 s: gone"):
        patient.call(action)


def test_pinecone_is_asked_again_and_its_refusal_told() -> None:
    pytest.importorskip("pinecone")
    index = Pinecone(DIMENSIONS)
    with serving(index) as host:
        store = open_store(f"pinecone://:{KEY}@things/space?host={host}")
        prepare(store, ORIGIN, SCHEMA)
        index.failures = [503, 429]
        store.upsert(rows(range(5)))
        assert store.count() == 5
        index.failures = [400]
        before = len(index.requests)
        with pytest.raises(StoreError, match=r"pinecone://:\*\*\*@things/space.*: .*as the service says it"):
            store.upsert(rows(range(5)))
        assert len(index.requests) == before + 1
        store.close()
