from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import FivefoldError, InputError
from fivefold.train.corpora import Graded, Labelled, Pair
from fivefold.train.rows import read_rows, read_texts
from tests.train import toys


def test_every_form_and_the_librarys_names(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "passage": "p"},
        {"anchor": "q", "positive": "p", "negative": "n"},
        {"question": "q", "answer": "p", "negatives": ["n", "m"], "lang": "de"},
        {"sentence1": "a", "sentence2": "b", "score": 1},
        {"text": "t", "label": 3},
    ]
    found = {}
    for number, row in enumerate(rows):
        found |= read_rows([toys.jsonl(tmp_path / f"f{number}.jsonl", [row])])
    assert found == {
        "f0": [Pair("", "q", "p")],
        "f1-1n": [Pair("", "q", "p", negatives=("n",))],
        "f2-de-2n": [Pair("de", "q", "p", negatives=("n", "m"))],
        "f3": [Graded("", "a", "b", 1.0)],
        "f4": [Labelled("", "t", "3")],
    }


def test_sets_are_of_one_language_and_as_many_negatives(tmp_path: Path) -> None:
    rows = [{"query": str(i), "passage": "p", "lang": "en" if i % 2 else "de"} for i in range(4)]
    rows.append({"query": "4", "passage": "p", "lang": "de", "negative": "n"})  # type: ignore[dict-item]
    assert {name: len(some) for name, some in read_rows([toys.jsonl(tmp_path / "f.jsonl", rows)]).items()} == {
        "f-de": 2,
        "f-en": 2,
        "f-de-1n": 1,
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "row 2 is not JSON"),
        ("[1]", "row 2 is not a JSON object"),
        ('{"query": "x"}', "row 2 has the keys query"),
        ('{"query": " ", "passage": "p"}', "'query' must be a text"),
        ('{"query": "q", "passage": "p", "negatives": [1]}', "negatives must be a list of texts"),
        ('{"first": "q", "second": "p", "score": "high"}', "score must be a number"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"query": "q", "passage": "p"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_rows([path])


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        read_rows([tmp_path / "absent.jsonl"])
    (tmp_path / "empty.jsonl").write_text("\n")
    for read in (read_rows, read_texts):
        with pytest.raises(InputError, match="there is no"):
            read([tmp_path / "empty.jsonl"])


def test_texts_of_lines_and_of_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two \n", encoding="utf-8")
    toys.jsonl(tmp_path / "b.jsonl", [{"text": "three", "lang": "en"}])
    assert read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl"]) == ["one", "two", "three"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
KEYS = st.sampled_from(["query", "passage", "negatives", "first", "second", "score", "text", "label", "lang"])


@given(st.dictionaries(KEYS, VALUES))
def test_wild_rows_are_rows_or_refused(row: dict[str, object]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        try:
            (rows,) = read_rows([path]).values()
        except FivefoldError:
            return
    assert len(rows) == 1
