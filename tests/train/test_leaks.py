from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from fivefold.errors import InputError
from fivefold.train.leaks import find_leaks

ASKED = "Where do the emperor penguins of the southern ice go when the long winter begins?"


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "a.tsv").write_text("A girl is styling her hair.\tA girl is brushing her hair.\t2.5\n", encoding="utf-8")
    with lzma.open(folder / "b.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write(
            json.dumps({"id": "not text", "questions": [ASKED, "敏捷的棕色狐狸跳过了河边的懒狗。今天天气很好"]}) + "\n"
        )
    return folder


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a girl is  STYLING her hair", "the same as"),
        (ASKED.replace("?", " ."), "the same as"),
        ("Tell me: " + ASKED.replace("begins", "comes"), "nearly the same as"),
        ("敏捷的棕色狐狸跳过了河边的懒狗。今天天气真好", "nearly the same as"),
        ("A girl is riding a horse.", None),
        ("Where do swallows go in winter, and when do they come back to us?", None),
        ("not text", None),
        ("2.5", None),
    ],
)
def test_what_counts_as_a_leak(sets: Path, tmp_path: Path, text: str, kind: str | None) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"src": "x", "t": {"en": text}}) + "\n", encoding="utf-8")
    leaks = find_leaks([corpus], [sets])
    assert [leak.kind for leak in leaks] == ([] if kind is None else [kind])
    assert all(leak.where == "corpus.jsonl, row 1" and leak.text == text for leak in leaks)


def test_the_sets_are_found_in_themselves(sets: Path) -> None:
    assert len(find_leaks([sets], [sets])) == 4


def test_the_name_of_a_class_is_no_text(sets: Path, tmp_path: Path) -> None:
    with lzma.open(sets / "c.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": "wie spät ist es gerade", "label": "HassGetCurrentTime"}) + "\n")
    corpus = tmp_path / "corpus.jsonl"
    rows = [
        {"text": "quelle heure est-il", "label": "HassGetCurrentTime"},
        {"text": "Hass get current time", "label": "x"},
    ]
    rows += [{"text": "HassGetCurrentTime", "label": "wie spät ist es gerade"}]
    corpus.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [(leak.where, leak.text) for leak in find_leaks([corpus], [sets])] == [
        ("corpus.jsonl, row 3", "HassGetCurrentTime")
    ]


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short\n")
    with pytest.raises(InputError, match="no evaluation text"):
        find_leaks([tmp_path], [tmp_path / "a.txt"])
    with pytest.raises(InputError, match="neither a file nor a folder"):
        find_leaks([tmp_path / "a.txt"], [tmp_path / "absent"])
