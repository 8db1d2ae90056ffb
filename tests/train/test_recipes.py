"""Each recipe on a toy: it learns, and leaves a model that loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold import Embedder, InputError, UnknownTaskError
from fivefold.checkpoint import read
from fivefold.train import recipes
from fivefold.train.journal import read_log
from fivefold.train.loop import Run, Schedule
from tests.train import toys
from tests.train.teacherfile import write_teacher

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers

TEXTS = toys.sentences(24)


def run(folder: Path) -> Run:
    return Run(folder, cpu=True, log_steps=1, save_steps=1000)


def quick(schedule: Schedule) -> Schedule:
    return replace(schedule, steps=6, batch_size=8, learning_rate=1e-2)


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read_log(folder)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(toys.model_folder(tmp_path / "model", hidden_dropout_prob=0.0))


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return [path]


def test_an_adapter_and_its_peft_folder_are_one(model: str, tmp_path: Path) -> None:
    file = toys.jsonl(tmp_path / "rows.jsonl", toys.pairs(16))
    trained = recipes.adapter(model, [file], run(tmp_path / "out"), family="text-matching", change=quick)
    (tmp_path / "model" / "NOTICE").write_text("whose this is")
    found = Embedder.load(trained).encode(TEXTS, task="text-matching")
    beside = Embedder.load(model, adapters={"mine": tmp_path / "out" / "adapter-text-matching"})
    np.testing.assert_allclose(beside.encode(TEXTS, task="mine"), found, atol=1e-5)
    assert np.abs(beside.encode(TEXTS, task="text-matching") - found).max() > 1e-3
    np.testing.assert_array_equal(beside.encode_query(TEXTS), Embedder.load(trained).encode_query(TEXTS))
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000
    again = recipes.adapter(model, [file], run(tmp_path / "out"), family="text-matching", change=quick)
    np.testing.assert_array_equal(Embedder.load(again).encode(TEXTS, task="text-matching"), found)  # was done already
    assert (again / "NOTICE").is_file()


def test_a_body_without_adapters_gets_all_five(tmp_path: Path) -> None:
    bare = toys.model_folder(tmp_path / "bare", lora_adaptations=(), task_instructions={})
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(TEXTS)]
    file = toys.jsonl(tmp_path / "rows.jsonl", rows)
    trained = Embedder.load(
        recipes.adapter(str(bare), [file], run(tmp_path / "out"), family="classification", change=quick)
    )
    assert len(trained.tasks) == 5 and trained.config.prompt("retrieval.query")
    plain = trained.encode(TEXTS)
    np.testing.assert_allclose(trained.encode(TEXTS, task="separation"), plain, atol=1e-6)
    assert np.abs(trained.encode(TEXTS, task="classification") - plain).max() > 1e-4


def test_pairs_train_the_body_and_drop_its_adapters(model: str, tmp_path: Path) -> None:
    copies = [{"query": "one two three four five", "passage": "one two three four five six"}]
    file = toys.jsonl(tmp_path / "rows.jsonl", [*toys.pairs(16), *copies])
    config, tensors = read(recipes.pairs(model, [file], run(tmp_path / "out"), change=quick))
    before = read(Path(model))[1]
    assert config.lora_adaptations == () and tensors.keys() < before.keys()
    assert not np.array_equal(tensors["layers.0.mlp.fc1.weight"], before["layers.0.mlp.fc1.weight"])
    assert losses(tmp_path / "out")[-1] < losses(tmp_path / "out")[0]
    with pytest.raises(InputError, match="repeats the words"):
        recipes.pairs(model, [toys.jsonl(tmp_path / "copies.jsonl", copies)], run(tmp_path / "out"))


def test_masked_words(model: str, texts: list[Path], tmp_path: Path) -> None:
    change = lambda schedule: replace(quick(schedule), steps=12)  # noqa: E731
    trained = recipes.mlm(model, texts, run(tmp_path / "out"), change=change)
    found = losses(tmp_path / "out")
    assert np.mean(found[-4:]) < np.mean(found[:4])
    assert np.isfinite(Embedder.load(trained).encode(TEXTS)).all()
    assert read(tmp_path / "out" / "masked-lm")[0].hidden_size == 32


@pytest.mark.parametrize("teacher", ["file", "model"])
def test_distillation_from_a_file_or_a_model(teacher: str, model: str, texts: list[Path], tmp_path: Path) -> None:
    name = tmp_path / "teacher.bin"
    if teacher == "file":
        write_teacher(name, toys.teacher_file())
        model = str(toys.model_folder(tmp_path / "wide", hidden_size=toys.HIDDEN))
    else:
        name = toys.model_folder(tmp_path / "other", hidden_size=64)
    out = tmp_path / "out"
    trained = recipes.distil(model, texts, run(out), teacher=str(name), change=quick)
    (_, tensors), (_, before) = read(trained), read(Path(model))
    words = "embeddings.word_embeddings.weight"
    assert np.array_equal(tensors[words], before[words])
    assert not np.array_equal(tensors["layers.1.norm2.bias"], before["layers.1.norm2.bias"])
    assert ("distance" in read_log(out)[0]) is (teacher == "file")  # the other is of another width
    assert losses(out)[-1] < losses(out)[0]


@pytest.mark.parametrize(
    ("family", "rows", "message"),
    [
        (
            "retrieval",
            [{"text": "t", "label": "a"}],
            "retrieval learns from pairs, one kind a file, not labelled texts",
        ),
        ("classification", [{"text": "t", "label": "a"}], "two classes"),
        ("nothing", [{"query": "q", "passage": "p"}], "unknown family"),
    ],
)
def test_rows_a_family_cannot_learn_from(
    model: str, tmp_path: Path, family: str, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        recipes.adapter(model, [toys.jsonl(tmp_path / "rows.jsonl", rows)], run(tmp_path / "out"), family=family)


def test_a_model_with_other_tasks(tmp_path: Path) -> None:
    model = toys.model_folder(tmp_path / "one", lora_adaptations=("separation",), task_instructions={})
    file = toys.jsonl(tmp_path / "rows.jsonl", toys.pairs(4))
    with pytest.raises(UnknownTaskError, match="has no adapters retrieval.query, retrieval.passage"):
        recipes.adapter(str(model), [file], run(tmp_path / "out"), family="retrieval")


def test_fewer_texts_than_a_batch(model: str, texts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a batch is 32 texts, but there are only 24"):
        recipes.distil(model, texts, run(tmp_path / "out"), teacher=model)
