"""The laws of training: what learns and what does not, going on after a kill, memory, precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fivefold.checkpoint import read
from fivefold.train import recipes
from fivefold.train.batches import target_set
from fivefold.train.families import FAMILIES
from fivefold.train.journal import Journal, read_log
from fivefold.train.loop import (
    CHECKPOINTS,
    Run,
    Schedule,
    adapters,
    assemble,
    body_but_words,
    fit,
    learn,
    newest_checkpoint,
)
from fivefold.train.losses import Distillation
from fivefold.train.teacher import ModelTeacher
from tests import toy
from tests.train import toys

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers


def toy_run(folder: Path, **options: Any) -> Run:
    return Run(folder, **{"cpu": True, "log_steps": 1, "save_steps": 1000, **options})


def fine_tune(model: Path, folder: Path, rows: list[dict[str, Any]], family: str, **options: Any) -> Path:
    """`recipes.adapter` on rows: schedule's numbers and the run's are told apart by name."""
    numbers = {name: options.pop(name) for name in ("steps", "learning_rate", "batch_size") if name in options}
    folder.mkdir(exist_ok=True)
    file = toys.jsonl(folder / "rows.jsonl", rows)
    change = lambda schedule: replace(schedule, **numbers)  # noqa: E731
    return recipes.adapter(str(model), [file], toy_run(folder, **options), family=family, change=change)


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read_log(folder)]


def test_32_pairs_are_learned_by_heart(tmp_path: Path) -> None:
    model = toys.model_folder(tmp_path / "model", hidden_dropout_prob=0.0)
    options = {"steps": 60, "learning_rate": 3e-2, "batch_size": 32}
    fine_tune(model, tmp_path / "run", toys.pairs(32), "text-matching", **options)
    found = losses(tmp_path / "run")
    assert found[0] > 1 and found[-1] < 0.05, (found[0], found[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_familys_adapters_change(family: str, tmp_path: Path) -> None:
    model = toys.model_folder(tmp_path / "model")
    rows: list[dict[str, Any]] = toys.pairs(8)
    if family == "separation":
        rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(toys.sentences(16))]
    trained = fine_tune(model, tmp_path / "run", rows, family, steps=2, learning_rate=1e-2, batch_size=8)
    (config, before), (_, after) = read(model), read(trained)
    own = [config.task_id(task) for task in FAMILIES[family].tasks]
    others = [i for i in range(5) if i not in own]
    for name, tensor in before.items():
        assert torch.equal(tensor[others], after[name][others]) if "lora_" in name else torch.equal(tensor, after[name])
    name = "layers.0.mlp.fc1.lora_B"
    assert all(not torch.equal(before[name][task], after[name][task]) for task in own)


def test_gradients_reach_what_learns_and_nothing_else() -> None:
    model = assemble(toy.encoder(), toy.rust_tokenizer(), task="separation")
    for parts in (adapters, body_but_words):
        learn(model, parts)
        model(model.preprocess(toys.sentences(3)))["sentence_embedding"][:, 0].sum().backward()
        reached = {name for name, p in model[0].encoder.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached and all(parts(name) for name in reached)
        assert not any(name.startswith(("pooler", "embeddings.word_embeddings.weight")) for name in reached)
        banks = {n: p.grad for n, p in model[0].encoder.named_parameters() if n in reached and "lora_" in n}
        assert all(not grad[[0, 1, 3, 4]].any() for grad in banks.values())
        model.zero_grad()


class Killed(Exception):
    """What stops a run in the middle."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Any:
    """From now on runs die when they log this step; `None` lets them live."""
    original = Journal.on_log

    def arm(step: int | None) -> None:
        def dying(self: Journal, args: Any, state: Any, control: Any, **rest: Any) -> None:
            original(self, args, state, control, **rest)
            if state.global_step == step:
                raise Killed

        monkeypatch.setattr(Journal, "on_log", dying)

    return arm


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-6, rtol=0, msg=name)


def test_a_killed_run_goes_on_as_if_it_had_lived(tmp_path: Path, kill: Any) -> None:
    """With dropout, several sets and a checkpoint before the kill."""
    model = toys.model_folder(tmp_path / "model", hidden_dropout_prob=0.1)
    rows = [{**row, "lang": "de" if i % 2 else "en"} for i, row in enumerate(toys.pairs(40))]
    options: dict[str, Any] = {"steps": 9, "learning_rate": 1e-2, "batch_size": 4, "save_steps": 3}
    whole = read(fine_tune(model, tmp_path / "whole", rows, "retrieval", **options))[1]
    kill(8)
    with pytest.raises(Killed):
        fine_tune(model, tmp_path / "killed", rows, "retrieval", **options)
    half_written = tmp_path / "killed" / CHECKPOINTS / "checkpoint-8"
    half_written.mkdir()
    kill(None)
    same(whole, read(fine_tune(model, tmp_path / "killed", rows, "retrieval", **options))[1])
    assert not half_written.exists()
    np.testing.assert_allclose(losses(tmp_path / "whole"), losses(tmp_path / "killed"), atol=1e-6)
    assert [entry["step"] for entry in read_log(tmp_path / "killed")] == list(range(1, 10))


def test_a_killed_distillation_too(tmp_path: Path, kill: Any) -> None:
    texts = toys.sentences(32)

    def distilled(folder: Path) -> dict[str, torch.Tensor]:
        student = assemble(toy.encoder(toy.config(lora_adaptations=(), task_instructions={})), toy.rust_tokenizer())
        learn(student, body_but_words)
        teacher = ModelTeacher(assemble(toy.encoder(seed=1), toy.rust_tokenizer()), 64)
        loss = Distillation(student, teacher, (8, 32))
        schedule = Schedule(6, 1e-2, 8, 64)
        run = toy_run(folder, save_steps=2)
        return fit(student, {"t": target_set(texts, texts)}, {"t": loss}, schedule=schedule, run=run, teacher=teacher)

    whole = distilled(tmp_path / "whole")
    kill(5)
    with pytest.raises(Killed):
        distilled(tmp_path / "killed")
    kill(None)
    same(whole, distilled(tmp_path / "killed"))
    parts = read_log(tmp_path / "whole")[-1]
    assert {"divergence", "prefixes", "distance"} <= parts.keys()
    assert losses(tmp_path / "whole")[-1] < losses(tmp_path / "whole")[0]


def test_recomputing_and_pieces_change_nothing_and_bf16_little(tmp_path: Path) -> None:
    model = toys.model_folder(tmp_path / "model", hidden_dropout_prob=0.0)
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "again": {"recompute": True},
        "pieces": {"piece": 3},
        "bf16": {"bf16": True},
    }
    found = {}
    for name, options in ways.items():
        fine_tune(
            model, tmp_path / name, toys.pairs(16), "retrieval", steps=4, learning_rate=1e-2, batch_size=8, **options
        )
        found[name] = losses(tmp_path / name)
    np.testing.assert_allclose(found["again"], found["plain"], atol=1e-5)
    np.testing.assert_allclose(found["pieces"], found["plain"], atol=1e-5)
    np.testing.assert_allclose(found["bf16"], found["plain"], atol=0.1)
    assert found["bf16"] != found["plain"]


def test_the_newest_whole_checkpoint_by_number(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for step in (9, 10, 100):
        (tmp_path / CHECKPOINTS / f"checkpoint-{step}").mkdir(parents=True)
    for step in (9, 10):
        (tmp_path / CHECKPOINTS / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert newest_checkpoint(tmp_path) == str(tmp_path / CHECKPOINTS / "checkpoint-10")
