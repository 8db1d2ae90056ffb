from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.errors import InputError
from fivefold.evaluate.sets import SHIPPED, Bitext, Documents, Graded, Labelled, Retrieval, read_sets
from tests.evaluate.board_sets import write_lines, write_sets


def test_every_kind_is_read(tmp_path: Path) -> None:
    sets = {data.name: data for data in read_sets([write_sets(tmp_path / "sets")])}
    assert list(sets) == [
        "stsb-en-dev",
        "tatoeba-deu-eng",
        "xquad-de",
        "xquad-de->en",
        "xquad-en",
        "vital-fr",
        "sib200-eng_Latn",
        "long-xquad-de",
        "long-xquad-en",
        "sentences-xquad-de",
        "sentences-xquad-en",
        "sentences-vital-fr",
    ]
    across, english = sets["xquad-de->en"], sets["xquad-en"]
    assert isinstance(across, Retrieval) and isinstance(english, Retrieval)
    assert across.passages == english.passages and across.queries != english.passages
    assert english.gold[:3] == (0, 0, 1)
    vital, labelled = sets["vital-fr"], sets["sib200-eng_Latn"]
    assert isinstance(vital, Retrieval) and len(vital.queries) == len(vital.passages) == 5  # one has no description
    assert isinstance(labelled, Labelled) and len(labelled.train) == 18 and set(labelled.test_labels) == set("abc")


def test_long_documents_are_articles_of_five(tmp_path: Path) -> None:
    sets = {data.name: data for data in read_sets([write_sets(tmp_path / "sets")])}
    long, sentences, passages = (sets[f"{kind}xquad-en"] for kind in ("long-", "sentences-", ""))
    assert isinstance(long, Documents) and isinstance(sentences, Documents) and isinstance(passages, Retrieval)
    assert [len(chunks) for chunks in long.documents] == [5, 5]
    assert long.gold[0] == (0, 0) and long.gold[-1] == (1, 4) and long.queries == passages.queries
    assert " ".join(sentences.documents[3]) == passages.passages[3] and len(sentences.documents[3]) == 3
    assert sentences.gold[3] == (1, None)


def test_the_shipped_sets_are_all_there() -> None:
    sets = read_sets([SHIPPED])
    counts = {kind.__name__: sum(type(data) is kind for data in sets) for kind in (Bitext, Retrieval, Labelled, Graded)}
    assert counts == {"Bitext": 20, "Retrieval": 3, "Labelled": 3, "Graded": 0}
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 2_000_000


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("sts-x.tsv", "a\tb", "row 1: 3 columns"),
        ("xquad-en.jsonl", "{", "row 1 is not JSON"),
        ("long-x.jsonl", '{"chunks": []}', "row 1 has no questions"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    write_lines(tmp_path / name, [line])
    with pytest.raises(InputError, match=message):
        read_sets([tmp_path])


def test_a_set_of_two_folders_is_there_once_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    """A table has one row for a name, and means would count both."""
    for folder, text in (("one", "a"), ("same", "a"), ("other", "b")):
        (tmp_path / folder).mkdir()
        write_lines(tmp_path / folder / "bitext-de.tsv", [f"{text}\tx"])
    assert len(read_sets([tmp_path / "one", tmp_path / "same"])) == 1
    with pytest.raises(InputError, match="other: another set is called bitext-de already"):
        read_sets([tmp_path / "one", tmp_path / "other"])


def test_folders_without_sets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no evaluation set"):
        read_sets([tmp_path])
    with pytest.raises(InputError, match="is not a folder"):
        read_sets([tmp_path / "absent"])
