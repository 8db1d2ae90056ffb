"""The four commands, one after the other, on a toy teacher and a few lines of text."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from fivefold import Embedder
from fivefold.train import adapters, nano
from tests.train import toys
from tests.train.teacherfile import write_teacher

SENTENCES = [("sun shines", "sol"), ("red moon", "luna roja"), ("red sun", "sol rojo"), ("moon", "luna")] * 3


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_teacher(folder / "teacher.bin", toys.teacher_file())
    toys.write_lines(folder / "par.jsonl.xz", [{"src": "bible", "t": {"en": en, "es": es}} for en, es in SENTENCES])
    pairs = [{"src": "vital_title", "lang": "en", "q": en, "p": f"{en} {es}"} for en, es in SENTENCES]
    toys.write_lines(folder / "pairs_asym.jsonl.xz", pairs)
    labels = [{"task": "vitaltopic", "lang": "en", "text": en, "label": en[0]} for en, _ in SENTENCES]
    toys.write_lines(folder / "labels.jsonl.xz", labels)
    toys.write_lines(folder / "lex.jsonl.xz", [{"src": "freedict", "a": "eng", "b": "spa", "x": "moon", "y": "luna"}])
    for lang, side in (("en", 0), ("es", 1)):
        rows = [f"{pair[side]}\t{pair[side]} {pair[side]}\t{i % 6}" for i, pair in enumerate(SENTENCES)]
        toys.write_lines(folder / f"stsb-{lang}-train.tsv.xz", rows)
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nano", *map(str, arguments)])
    nano.main()


def test_from_a_teacher_to_a_model_that_loads(inputs, tmp_path, monkeypatch):
    short = {name: replace(group, steps=2) for name, group in adapters.GROUPS.items()}
    monkeypatch.setattr(nano, "GROUPS", short)
    work, target = tmp_path / "work", tmp_path / "toy-nano"
    common = ["--corpora", inputs, "--stsb", inputs, "--teacher", inputs / "teacher.bin", "--out", work]
    run(monkeypatch, "vocabulary", *common, "--size", 34)
    run(monkeypatch, "distil", *common, "--steps", 3, "--workers", 1)
    run(monkeypatch, "adapters", *common, "--workers", 1)
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"with adapters": {"stsb-en": 0.5}}))
    run(monkeypatch, "package", "--out", work, "--target", target, "--scores", scores)

    embedder = Embedder.load(target)
    assert set(embedder.tasks) == {task for group in short.values() for task in group.tasks}
    vectors = np.stack([embedder.encode("red sun", task=task) for task in (None, *embedder.tasks)])
    assert np.isfinite(vectors).all() and len(np.unique(vectors, axis=0)) == 6
    card = (target / "README.md").read_text()
    assert "| stsb-en | 0.5000 |" in card and "| bible (aligned sentences) |" in card
    assert json.loads((work / "distil.log").read_text().splitlines()[-1])["step"] == 3
