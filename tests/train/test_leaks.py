from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import InputError
from fivefold.train import leaks
from fivefold.train.leaks import MIN_RUNS, Index, find_leaks, normalised, runs

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


def repeats(evaluation: list[str], text: str, near: float, common: int) -> bool:
    """The definition, word for word."""
    sets = [found for form in set(map(normalised, evaluation)) if len(found := runs(form)) >= MIN_RUNS]
    telling = {run for found in sets for run in found if sum(run in other for other in sets) <= common}
    own = runs(normalised(text))
    return normalised(text) in map(normalised, evaluation) or any(
        len(own) >= MIN_RUNS and len(own & found & telling) >= max(1, near * min(len(own), len(found)))
        for found in sets
    )


LINES = st.lists(st.sampled_from("alpha beta gamma delta".split()), min_size=3, max_size=14).map(" ".join)


@given(
    st.lists(LINES, min_size=1, max_size=12), LINES, st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.sampled_from([2, 200])
)
def test_no_near_text_is_missed(evaluation: list[str], text: str, near: float, common: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "COMMON", common)
        found = Index(evaluation, near=near).leak("", text)
    assert (found is not None) is repeats(evaluation, text, near, common)


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
