"""`fivefold batch` as people call it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fivefold import Embedder
from fivefold.checkpoint import save_adapter
from fivefold.cli import EXIT_ERROR, main
from fivefold.jobs.work import Model
from tests.jobs.corpus import assert_same, jsonl, rows, written


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    return jsonl(tmp_path / "rows.jsonl", [*rows(10), {"id": "bad", "text": None}])


def batch(corpus: str, tiny_folder: Path, *options: str) -> int:
    return main(["batch", corpus, "--id-field", "id", "--model", str(tiny_folder), "--part-rows", "4", *options])


def test_a_run_and_what_it_says(
    corpus: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert batch(corpus, tiny_folder, "--output", str(out), "--json", "--truncate-dim", "8") == 0
    told = capsys.readouterr()
    numbers = json.loads(told.out)
    assert (numbers["rows"], numbers["reused"], numbers["vectors"], numbers["failed"]) == (11, 0, 10, 1)
    assert f"1 of 11 rows failed; {out}/_fivefold/errors.jsonl" in told.err
    assert len(pq.read_table(out)["vector"][0]) == 8
    assert batch(corpus, tiny_folder, "--output", str(out), "--truncate-dim", "8", "--strict") == EXIT_ERROR
    told = capsys.readouterr()
    assert "11 rows, 11 of them from before" in told.out and "1 of 11 rows failed" in told.err


def test_a_dry_run_estimates_and_writes_nothing(
    corpus: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    assert batch(corpus, tiny_folder, "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["parts"], told["vectors"], told["sampled_rows"]) == (11, 3, 10, 11)
    assert (
        told["failed_in_sample"] == 1
        and told["seconds"] > 0
        and told["output_bytes"] > 10 * 32 * 4
        and told["memory_bytes"] > 1e7
    )
    assert batch(corpus, tiny_folder, "--dry-run", "--workers", "1-4") == 0
    assert "rows      11 in 3 parts" in capsys.readouterr().out and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the folder of vectors and progress with --output"),
        (["--output", "x", "--workers", "two"], "--workers must be a number, or a range"),
        (["--output", "x", "--workers", "4-2"], "--workers must be a range from 1 up"),
        (["--output", "x", "--store", "nowhere://x"], "names no store we know"),
        (["--output", "nosuch://x"], "cannot write to nosuch://x"),
        (["--output", "x", "--task", "translation"], "translation"),
        (["--output", "x", "--truncate-dim", "0"], "truncate_dim"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_told_before_anything_is_written(
    options: list[str],
    message: str,
    corpus: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert batch(corpus, tiny_folder, *options) == EXIT_ERROR
    assert message in capsys.readouterr().err and not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"id": "a", "body": "x"}], "there is no column 'text'; it has 'id', 'body'. Name it with --field"),
        ([{"id": "a", "text": 5}], "the column 'text' must hold texts, it holds int; see --field"),
        (
            [{"id": 1.5, "text": "x"}],
            "the column 'id' must hold texts or whole numbers, it holds float; see --id-field",
        ),
        ([*rows(10), *rows(2, 4)], "ids must be unique, and 'd4', 'd5' come more than once; nothing was written"),
        ([], "there is no row in"),
    ],
    ids=["a missing column", "a wrong type", "a wrong id", "duplicate ids", "an empty file"],
)
def test_a_corpus_that_is_no_good_leaves_what_was_done(
    records: list[dict[str, object]],
    message: str,
    corpus: str,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is refused before anything is written, in a new output and in one that there was."""
    bad = jsonl(tmp_path / "bad.jsonl", records)
    assert batch(bad, tiny_folder, "--output", str(tmp_path / "new")) == EXIT_ERROR
    assert message in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "new").rglob("*") if path.is_file()] == [".lock"]
    out = tmp_path / "out"
    assert batch(corpus, tiny_folder, "--output", str(out)) == 0
    before, text = written(out), Path(corpus).read_text()
    jsonl(Path(corpus), records)
    assert batch(corpus, tiny_folder, "--output", str(out), "--update") == EXIT_ERROR
    assert message in capsys.readouterr().err
    assert_same(written(out), before)
    Path(corpus).write_text(text)
    assert batch(corpus, tiny_folder, "--output", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["reused"] == 11


def test_an_adapter_of_ones_own(corpus: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Its vectors, and what the tokeniser of a worker makes of its name."""
    save_adapter(tiny_folder, tmp_path / "a", task="separation")
    adapters, prompts = {"mine": str(tmp_path / "a")}, {"mine": "Text: "}
    options = ("--adapter", f"mine={adapters['mine']}", "--prompt", "mine=Text: ", "--task", "mine")
    assert batch(corpus, tiny_folder, "--output", str(tmp_path / "out"), *options) == 0
    table = pq.read_table(tmp_path / "out")
    texts = ["Text: " + text for text in table["text"].to_pylist()]
    expected = Embedder.load(tiny_folder).encode(texts, task="separation")
    np.testing.assert_allclose(table["vector"].to_pylist(), expected, atol=1e-6)
    model = Model(str(tiny_folder), adapters=adapters, prompts=prompts)
    assert model.tokenizer().config == model.embedder().config


def test_workers_without_ray_name_the_extra(
    corpus: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fivefold.jobs.cluster", raising=False)
    assert batch(corpus, tiny_folder, "--output", "x", "--workers", "1") == EXIT_ERROR
    assert "pip install 'fivefold[ray]'" in capsys.readouterr().err


def test_a_job_here_does_not_import_ray(corpus: str, tiny_folder: Path, tmp_path: Path) -> None:
    assert batch(corpus, tiny_folder, "--output", str(tmp_path / "out")) == 0
    assert "fivefold.jobs.cluster" not in sys.modules or "ray" in sys.modules
