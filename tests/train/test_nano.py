"""All stages, one after the other, on a toy teacher and a few lines of text."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fivefold import Embedder, InputError
from fivefold.checkpoint import read
from fivefold.errors import MissingFileError
from fivefold.layouts import is_bank
from fivefold.train import nano
from fivefold.train.card import model_card
from fivefold.train.families import FAMILIES
from fivefold.train.journal import read_log
from fivefold.train.loop import Run
from fivefold.train.nano import SCHEDULES, Plan, drawn_texts, v3_nano
from fivefold.train.packaging import SOURCES, write_package
from fivefold.train.sampling import Mixture
from tests.train import toys
from tests.train.teacherfile import write_teacher

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers

WORDS = ("sun", "moon", "red", "rojo", "sol", "luna", "star", "mar", "tea", "note")
SENTENCES = [(f"{a} shines {b}", f"{b} sol {a}") for a in WORDS for b in WORDS[:4]]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    folder = tmp_path / "data"
    folder.mkdir()
    write_teacher(folder / "teacher.bin", toys.teacher_file())
    toys.write_lines(folder / "par.jsonl.xz", [{"src": "bible", "t": {"en": en, "es": es}} for en, es in SENTENCES])
    pairs = [{"src": "vital_title", "lang": "en", "q": en, "p": f"{en} {es}"} for en, es in SENTENCES]
    toys.write_lines(folder / "pairs_asym.jsonl.xz", pairs)
    labels = [
        {"task": "vitaltopic", "lang": "en", "text": en, "label": "ab"[i % 2]} for i, (en, _) in enumerate(SENTENCES)
    ]
    toys.write_lines(folder / "labels.jsonl.xz", labels)
    for lang, side in (("en", 0), ("es", 1)):
        rows = [f"{pair[side]}\t{pair[side]} {pair[side]}\t{i % 6}" for i, pair in enumerate(SENTENCES)]
        toys.write_lines(folder / f"stsb-{lang}-train.tsv.xz", rows)
    short = {name: {"steps": 3, "batch_size": 4, "max_length": 48} for name in SCHEDULES}
    work = Plan(tmp_path / "work", folder, folder, folder / "teacher.bin", tmp_path / "toy-nano", front=2)
    return work.with_schedules(short)


def run(**options: Any) -> Run:
    return Run(Path("unused"), cpu=True, log_steps=1, save_steps=2, **options)


ROWS = """
import sys
from pathlib import Path
from fivefold.train.loop import Run, Schedule
from fivefold.train.nano import _processes, _rows
run = Run(Path("unused"), cpu=True)
sys.stdout.write(f"{_processes(run).process_index}: {_rows(Schedule(3, 1e-3, 4, 48), run)} rows\\n")
"""


def test_rows_are_drawn_for_every_process(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text(ROWS)
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*two, str(tmp_path / "rows.py")], capture_output=True, text=True, timeout=120)
    assert sorted(done.stdout.splitlines()) == ["0: 24 rows", "1: 24 rows"], done.stderr


def test_from_a_teacher_to_a_model_that_loads(plan: Plan, tmp_path: Path) -> None:
    scores = tmp_path / "scores.md"
    scores.write_text("| set | own, 32 |\n|---|---:|\n| stsb-en spearman | 0.5000 |\n")
    v3_nano(replace(plan, scores=scores), run())
    names = ("start", "body", "body-turned", "body-refined", "body-pairs")
    bodies = [load_file(plan.work / f"{name}.safetensors") for name in names]
    parts = ("embeddings.word_embeddings", "layers.0.mlp.fc1", "layers.1.attention.Wqkv", "layers.1.mlp.fc1")
    words, first, last, turning = ([body[f"{name}.weight"] for body in bodies] for name in parts)
    assert all(torch.equal(words[0], one) for one in words) and all(b.keys() == bodies[0].keys() for b in bodies)
    changed = [[not torch.equal(a, b) for a, b in pairwise(layer)] for layer in (first, last, turning)]
    assert changed == [[True, False, True, True], [True, False, True, True], [True, True, False, True]]
    embedder = Embedder.load(plan.target)
    assert set(embedder.tasks) == {task for family in FAMILIES.values() for task in family.tasks}
    vectors = np.stack([embedder.encode("red sun", task=task) for task in (None, *embedder.tasks)])
    assert np.isfinite(vectors).all() and len(np.unique(vectors.round(6), axis=0)) == 6
    card = (plan.target / "README.md").read_text()
    assert "| stsb-en spearman | 0.5000 |" in card and "token by token" in card and "windows. 3 updates" in card
    assert [entry["step"] for entry in read_log(plan.work / "runs" / "adapters" / "retrieval")] == [1, 2, 3]


def test_a_stage_that_is_done_is_passed_over_and_one_that_is_not_is_missed(plan: Plan) -> None:
    with pytest.raises(MissingFileError, match="run the stage"):
        v3_nano(plan, run(), ["distil"])
    v3_nano(plan, run(), ["start"])
    with pytest.raises(
        MissingFileError, match=r"has no body-refined\.safetensors or body-turned\.safetensors or body\.safetensors"
    ):
        v3_nano(plan, run(), ["pairs"])
    with pytest.raises(InputError, match="unknown stage 'cook'"):
        v3_nano(plan, run(), ["cook"])


def test_adapters_turn_with_their_body_and_stay_so_where_they_learn_no_more(plan: Plan) -> None:
    v3_nano(plan, run(), ["start", "distil", "adapters"])
    before = load_file(plan.work / "adapters-separation.safetensors")
    still = plan.with_schedules({name: {"steps": 0} for name in FAMILIES})
    v3_nano(still, run(), ["turn", "adapters"])
    turned, after = (load_file(plan.work / f"adapters-separation{end}.safetensors") for end in ("-turned", ""))
    for name, bank in before.items():
        assert torch.equal(after[name], turned[name])
        assert torch.equal(after[name], bank) is not name.startswith("layers.1.mlp.fc"), name
    with pytest.raises(InputError, match="turned already"):
        v3_nano(plan, run(), ["turn"])


def test_adapters_that_learned_on_keep_a_share_of_their_start(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    v3_nano(plan, run(), ["start", "distil", "adapters", "turn"])
    only = plan.with_schedules({name: {"steps": 0} for name in FAMILIES if name != "retrieval"})
    path, found = plan.work / "adapters-retrieval.safetensors", {}
    for share in (0.0, 0.5):
        monkeypatch.setattr(nano, "KEPT", {"retrieval": share})
        path.unlink(missing_ok=True)
        shutil.rmtree(plan.work / "runs" / "adapters")
        v3_nano(only, run(), ["adapters"])
        found[share] = load_file(path)
    start = load_file(plan.work / "adapters-retrieval-turned.safetensors")
    assert any(not torch.equal(end, start[name]) for name, end in found[0.0].items())
    for name, end in found[0.0].items():
        torch.testing.assert_close(found[0.5][name], (end + start[name]) / 2)


def test_classes_are_learned_from_where_questions_are_told_apart(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the adapter of queries and behind its prompt, whatever classification had before."""
    v3_nano(plan, run(), ["start", "distil", "adapters", "turn"])
    only = plan.with_schedules({name: {"steps": 0} for name in FAMILIES if name != "classification"})
    found = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(nano, "KEPT", {"classification": share})
        (plan.work / "adapters-classification.safetensors").unlink(missing_ok=True)
        shutil.rmtree(plan.work / "runs" / "adapters", ignore_errors=True)
        v3_nano(only, run(), ["adapters"])
        found[share] = load_file(plan.work / "adapters-classification.safetensors")
    start = {name: bank[:1] for name, bank in load_file(plan.work / "adapters-retrieval.safetensors").items()}
    assert all(torch.equal(bank, start[name]) for name, bank in found[1.0].items())
    assert any(not torch.equal(bank, start[name]) for name, bank in found[0.0].items())
    prompts = json.loads((plan.work / "config.json").read_text())["task_instructions"]
    assert prompts["classification"] == prompts["retrieval.query"] != prompts["separation"] == ""


def test_a_refined_body_keeps_a_share_of_its_start(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    v3_nano(plan, run(), ["start", "distil", "turn"])
    found = {}
    for share in (0.0, 0.25):
        monkeypatch.setattr(nano, "KEPT", {"refine": share})
        v3_nano(plan, run(), ["refine"])
        shutil.rmtree(plan.work / "runs" / "refine")
        found[share] = load_file(plan.work / "body-refined.safetensors")
    start = load_file(plan.work / "body-turned.safetensors")
    assert any(not torch.equal(end, start[name]) for name, end in found[0.0].items())
    for name, end in found[0.0].items():
        torch.testing.assert_close(found[0.25][name], 0.75 * end + 0.25 * start[name])


@pytest.mark.parametrize("changes", [{"cook": {"steps": 1}}, {"distil": {"stops": 1}}])
def test_schedules_that_do_not_exist(plan: Plan, changes: dict[str, dict[str, float]]) -> None:
    with pytest.raises(InputError, match="there is no schedule"):
        plan.with_schedules(changes)


def test_texts_are_drawn_without_end_and_the_same_again() -> None:
    mixture = Mixture(toys.corpora())
    rows = list(islice(drawn_texts(mixture, 0), 100))
    assert len(rows) == 100 and rows[:30] == list(islice(drawn_texts(mixture, 0), 30)) != rows[30:60]
    assert all(
        target.startswith(("query: ", "passage: ")) and (not same or same.endswith(text)) for text, target, same in rows
    )


def test_a_package_has_its_tasks_in_order(tmp_path: Path) -> None:
    encoder, tokenizer = toys.student()
    body = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items() if "lora" not in name}
    save_file(body, tmp_path / "body.safetensors")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps(encoder.config.to_dict()))
    sources = Mixture(toys.corpora()).drawn()
    (tmp_path / SOURCES).write_text(json.dumps(sources))
    for number, (name, family) in enumerate(FAMILIES.items()):
        ids = [encoder.config.task_id(task) for task in family.tasks]
        banks = {k: torch.full_like(v[ids], number) for k, v in encoder.state_dict().items() if "lora" in k}
        save_file(banks, tmp_path / f"adapters-{name}.safetensors")
    write_package(tmp_path, tmp_path / "body.safetensors", tmp_path / "package", updates={"distil": 1200}, longest=422)
    config, tensors = read(tmp_path / "package")
    files = [set(load_file(path)) for path in (tmp_path / "package").glob("*.safetensors")]
    words = "embeddings.word_embeddings.weight"
    assert (
        {words, f"{words}_books", f"{words}_basis"} in files
        and set(filter(is_bank, tensors)) in files
        and len(files) == 3
    )
    assert tensors["layers.0.mlp.fc1.lora_A"][:, 0, 0].tolist() == [0, 0, 3, 2, 1]
    assert config.lora_adaptations == encoder.config.lora_adaptations
    torch.testing.assert_close(tensors["layers.1.mlp.fc2.weight"], body["layers.1.mlp.fc2.weight"], atol=0.01, rtol=0)
    card = (tmp_path / "package" / "README.md").read_text()
    assert (
        "multilingual-e5-small (MIT, Microsoft)" in card and "1,200 updates" in card and "_Not measured yet._" in card
    )
    assert "3. **Adapters**" in card and "**A turn**" not in card and "at most 422." in card
    trained = model_card(
        config, updates={"turn": 1, "refine": 7, "pairs": 9}, longest=422, sources=sources, scores="| a |"
    )
    assert "| bible (aligned sentences) | public domain translations |" in trained and "| mo (" not in trained
    assert (
        "3. **A turn**" in trained
        and "stayed as it was. 7 updates" in trained
        and "5. **Pairs**" in trained
        and "6. **Adapters**" in trained
        and "| a |" in trained
    )
