"""`fivefold train` from its options to the files it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fivefold import Embedder
from fivefold.checkpoint import read
from fivefold.cli import main
from tests.train import toys

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return toys.jsonl(tmp_path / "rows.jsonl", toys.pairs(12))


def train(*argv: object) -> int:
    return main(["train", *map(str, argv)])


QUICK = ("--cpu", "--steps", 2, "--batch-size", 4, "--learning-rate", 0.01, "--max-length", 16, "--log-steps", 1)


def test_an_adapter(tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = toys.model_folder(tmp_path / "model")
    out = tmp_path / "out"
    assert train("adapter", "--family", "retrieval", "--model", model, "--out", out, *QUICK, rows) == 0
    said = capsys.readouterr().out
    assert f"{out}/model: the model" in said and f"{out}/adapter-retrieval.query: a PEFT folder" in said
    assert Embedder.load(out / "model").encode_query("fox").shape == (32,)
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2]


@pytest.mark.parametrize("recipe", ["mlm", "pairs", "distil"])
def test_bodies(recipe: str, tmp_path: Path, rows: Path) -> None:
    model = toys.model_folder(tmp_path / "model")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(toys.sentences(12)), encoding="utf-8")
    more = ("--teacher", model) if recipe == "distil" else ()
    given = rows if recipe == "pairs" else texts
    assert train(recipe, "--model", model, "--out", tmp_path / "out", *QUICK, *more, given) == 0
    assert read(tmp_path / "out" / "model")[0].lora_adaptations == ()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("pairs", "--out", "x", "absent.jsonl"), "absent.jsonl is not a file"),
        (("adapter", "--family", "retrieval", "--out", "x", "--steps", "0", "ROWS"), "--steps must be positive"),
        (
            ("adapter", "--family", "retrieval", "--out", "x", "--temperature", "0", "ROWS"),
            "--temperature must be positive",
        ),
        (("check-corpora", "ROWS", "--against", "absent"), "neither a file nor a folder"),
    ],
)
def test_what_is_wrong_is_said(
    argv: tuple[str, ...], message: str, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*(rows if word == "ROWS" else word for word in argv)) == 2
    assert message in capsys.readouterr().err


def test_evaluation_text_is_found_or_not(tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = tmp_path / "sts-x.tsv"
    sets.write_text("Something else altogether\tnothing alike here\t1\n")
    assert train("check-corpora", rows, "--against", sets) == 0
    text = json.loads(rows.read_text().splitlines()[2])["query"]
    sets.write_text(f"{text.upper()}\tx\t1\n")
    assert train("check-corpora", rows, "--against", sets) == 2
    said = capsys.readouterr()
    assert "rows.jsonl, row 3" in said.out and "1 texts of the evaluation sets" in said.err
