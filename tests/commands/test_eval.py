"""`fivefold eval` from its options to the table and the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fivefold.cli import main
from tests.evaluate.board_sets import write_sets
from tests.train import toys


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toys.model_folder(tmp_path / "model", max_position_embeddings=512)


def test_a_table_json_and_pictures(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = write_sets(tmp_path / "sets")
    out = tmp_path / "scores.json"
    argv = [
        "eval",
        sets,
        "--model",
        model,
        "--only",
        "stsb",
        "xquad-en",
        "--dims",
        8,
        32,
        "--lengths",
        60,
        "--json",
        out,
    ]
    assert main([*map(str, argv), "--plots", str(tmp_path / "plots")]) == 0
    said = capsys.readouterr()
    assert "| stsb-en-dev spearman |" in said.out and "| **xquad ndcg@10** |" in said.out
    assert "xquad-en@60 whole (own, 32)" in said.err and "plots/matryoshka.png" in said.err
    assert {score["set"] for score in json.loads(out.read_text())["scores"]} == {
        "stsb-en-dev",
        "xquad-en",
        "xquad-en@60",
    }


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        (["--task", "separation"], "| set | separation, 32 |"),
        (["--task", "none"], "| set | body, 32 |"),
        (["--no-prompts"], "| set | own, no prompts, 32 |"),
        (["--matrix"], "| set | own, 32 | body, 32 | retrieval.query, 32 |"),
        (["--ablation"], "| set | own, 32 | 2 adapters, prompts, 32 |"),
    ],
)
def test_ways(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], columns: str
) -> None:
    sets = write_sets(tmp_path / "sets")
    assert main(["eval", str(sets), "--model", str(model), "--only", "xquad-en", *options]) == 0
    assert capsys.readouterr().out.startswith(columns)


def test_nothing_to_measure(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = write_sets(tmp_path / "sets")
    assert main(["eval", str(sets), "--model", str(model), "--only", "stsb", "--kinds", "long"]) == 2
    assert "none of the sets is of the kinds" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told_before_measuring(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = write_sets(tmp_path / "sets")
    assert main(["eval", str(sets), "--model", str(model), "--json", str(tmp_path / "absent" / "scores.json")]) == 2
    said = capsys.readouterr()
    assert not said.out and len(said.err.splitlines()) == 1 and "absent is not a folder; make it first" in said.err
