"""jobs/attempts.py: from the third try on a part goes row by row, and a row is blamed for two deaths only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.embedder import Embedder
from fivefold.jobs import attempts, sources
from fivefold.jobs.attempts import POISON, Attempt, attempt
from fivefold.jobs.folder import Folder
from fivefold.jobs.job import form_of
from fivefold.jobs.plan import make_plan, samples
from fivefold.jobs.work import Embedded, Prepared, Settings, embed, prepare
from tests import toy
from tests.jobs.corpus import IDS, jsonl, rows

NAMES = st.none() | st.text(max_size=5)


class Death(BaseException):
    """In the place of a process that ends: nothing catches it."""


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return toy.embedder()


@pytest.fixture(params=[None, 4], ids=["texts", "chunks"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return Settings(task="retrieval.passage", chunk_tokens=request.param)


@pytest.fixture
def prepared(settings: Settings, embedder: Embedder, tmp_path: Path) -> Prepared:
    """Six rows as one part, one of which cannot be read."""
    records = rows(6)
    records[2]["text"] = None
    plan = make_plan(sources.files([jsonl(tmp_path / "rows.jsonl", records)], None), IDS, 100)
    return prepare(next(iter(samples(plan, 1))), embedder.tokenizer, settings)


@given(st.integers(0, 9), NAMES, NAMES, st.lists(st.text(max_size=5)))
def test_an_attempt_comes_back_from_its_file(
    number: int, row: str | None, suspect: str | None, poison: list[str]
) -> None:
    told = Attempt(number, row, suspect, tuple(poison))
    assert Attempt.from_json(told.to_json()) == told
    assert Attempt.from_json(None) == Attempt()


def tries(killers: set[str], work: tuple[Prepared, Embedder, Settings, Folder]) -> Iterator[Embedded | None]:
    """What each try gives, or None where it ended at one of these rows."""
    part, embedder, settings, folder = work
    while True:
        try:
            yield attempt(part, embedder, form_of(embedder, settings), folder)
        except Death:
            yield None


def test_a_killer_is_found_and_the_others_are_done(
    prepared: Prepared, settings: Settings, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two quick tries, two that name the row, and then all but that row, with the vectors they have without it."""

    def deadly(part: Prepared, *rest: object) -> Embedded:
        if "d4" in part.owners:
            raise Death
        return embed(part, *rest)  # type: ignore[arg-type]

    whole = embed(prepared, embedder, form_of(embedder, settings))
    monkeypatch.setattr(attempts, "embed", deadly)
    found = tries({"d4"}, (prepared, embedder, settings, Folder(str(tmp_path / "out"))))
    assert [next(found) for _ in range(4)] == [None] * 4
    done = next(found)
    assert done is not None and dict(done.failed)["d4"] == POISON and dict(done.failed).keys() == {"d2", "d4"}
    kept = [not name.startswith("d4") for name in whole.table["id"].to_pylist()]
    assert done.table["id"].to_pylist() == [n for n, k in zip(whole.table["id"].to_pylist(), kept, strict=True) if k]
    np.testing.assert_allclose(done.vectors, whole.vectors[kept], atol=1e-6)
    assert done.cut == whole.cut and done.tokens < whole.tokens


def test_row_by_row_gives_what_all_together_do(
    prepared: Prepared, settings: Settings, embedder: Embedder, tmp_path: Path
) -> None:
    """Where the worker had ended for some other reason."""
    folder, form = Folder(str(tmp_path / "out")), form_of(embedder, settings)
    folder.write(folder.attempt_file(0), Attempt(number=5).to_json())
    slow, quick = attempt(prepared, embedder, form, folder), embed(prepared, embedder, form)
    assert slow.table.equals(quick.table) and (slow.tokens, slow.failed) == (quick.tokens, quick.failed)
    np.testing.assert_allclose(slow.vectors, quick.vectors, atol=1e-6)
