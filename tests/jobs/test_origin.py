"""What vectors were made with: asked of a model, compared, and held against queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fivefold import Embedder, InputError
from fivefold.jobs.origin import differences, origin_of, query_task
from fivefold.jobs.store import Origin
from fivefold.vectors import normalize


@pytest.fixture(scope="module")
def embedder(tiny_folder: Path) -> Embedder:
    return Embedder.load(tiny_folder)


def test_a_model_tells_its_origin(embedder: Embedder, tiny_folder: Path) -> None:
    told = origin_of(embedder, task="separation", truncate_dim=8, precision="int8")
    assert (told.model, told.task, told.dimensions, told.precision) == (str(tiny_folder), "separation", 8, "int8")
    assert np.linalg.norm(told.probe) == pytest.approx(1, abs=1e-3)
    assert Origin.from_dict(told.to_dict()) == told
    assert differences(told, origin_of(embedder, task="separation", truncate_dim=8, precision="int8")) == []
    assert differences(told, replace(told, model="the same folder, moved")) == []


def test_half_precision_is_the_same_model_and_other_weights_are_not(embedder: Embedder, tiny_folder: Path) -> None:
    told = origin_of(embedder, task="retrieval.passage")
    half = origin_of(Embedder.load(tiny_folder, dtype="bfloat16"), task="retrieval.passage")
    assert differences(told, half) == []
    noise = np.random.default_rng(0).standard_normal(len(told.probe)).astype(np.float32)
    moved = normalize(np.array(told.probe, dtype=np.float32) + 0.1 * normalize(noise))
    (said,) = differences(told, replace(told, probe=tuple(moved.tolist())))
    assert "other weights" in said


@pytest.mark.parametrize("task", ["text-matching", "classification", "separation", None])
def test_symmetric_tasks_are_asked_with_themselves(task: str | None, embedder: Embedder) -> None:
    stored = origin_of(embedder, task=task)
    assert query_task(stored) == task == query_task(stored, task)
    with pytest.raises(InputError, match="two other spaces"):
        query_task(stored, "retrieval.query")


def test_passages_are_asked_with_queries(embedder: Embedder) -> None:
    stored = origin_of(embedder, task="retrieval.passage")
    assert query_task(stored) == query_task(stored, "retrieval.passage") == "retrieval.query"
    for other in ("text-matching", None):
        with pytest.raises(InputError, match="does not fit"):
            query_task(stored, other)
