"""jobs/estimate.py: what is told of a job beforehand against what the job then takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fivefold.embedder import Embedder
from fivefold.jobs import estimate as module
from fivefold.jobs import sources
from fivefold.jobs.estimate import estimate
from tests import toy
from tests.jobs.corpus import IDS, SMALL, jsonl, rows, run


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return toy.embedder()


def test_a_small_corpus_is_counted_exactly(embedder: Embedder, tmp_path: Path) -> None:
    """Every row is in the sample, so only time and memory are guesses; nothing is written."""
    path = jsonl(tmp_path / "rows.jsonl", [*rows(10), {"id": "bad", "text": None}])
    told = estimate(sources.files([path], None), IDS, SMALL, embedder=embedder, workers=1)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "rows.jsonl"]
    summary = run(path, tmp_path / "out", embedder)
    written = sum(file.stat().st_size for file in (tmp_path / "out").glob("part-*.parquet"))
    assert (told.rows, told.parts, told.failed_in_sample) == (11, 3, 1)
    assert (told.tokens, told.vectors, told.output_bytes) == (summary.tokens, summary.vectors, written)
    assert told.seconds > 0 and told.memory_bytes > 50e6
    assert "11 in 3 parts" in str(told) and told.to_dict()["vectors"] == 10


@pytest.mark.parametrize("chunk_tokens", [None, 4])
def test_what_goes_with_length_is_scaled_by_it_and_the_rest_by_rows(
    chunk_tokens: int | None, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sample has the first of four rows of each part, the shortest of them."""
    monkeypatch.setattr(module, "SAMPLED_ROWS", 1)
    records = [{"id": str(i), "text": "abc " * (6 if i % 4 else 3)} for i in range(8)]
    path = jsonl(tmp_path / "rows.jsonl", records)
    settings = replace(SMALL, chunk_tokens=chunk_tokens)
    told = estimate(sources.files([path], None), IDS, settings, embedder=embedder, workers=2)
    made = run(path, tmp_path / "out", embedder, settings=settings)
    assert told.sampled_rows == 2 and told.memory_bytes > 2 * 50e6
    if chunk_tokens is None:
        assert told.vectors == made.vectors == 8
    else:
        assert told.vectors == pytest.approx(made.vectors, rel=0.5)
    assert told.tokens == pytest.approx(made.tokens, rel=0.5)


def test_rows_that_cannot_be_read_are_in_the_sample_in_their_share(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLED_ROWS", 3)
    records = [{"id": str(i), "text": None if i >= 6 else "abc"} for i in range(12)]
    path = jsonl(tmp_path / "rows.jsonl", records)
    settings = replace(SMALL, part_rows=100)
    told = estimate(sources.files([path], None), IDS, settings, embedder=embedder, workers=1)
    assert (told.sampled_rows, told.failed_in_sample, told.vectors) == (6, 3, 6)
