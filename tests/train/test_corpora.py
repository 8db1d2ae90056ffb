import json
import lzma

import pytest

from fivefold.errors import MissingFileError
from fivefold.train.corpora import read_corpora


def write(path, rows):
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path / "par.jsonl.xz",
        [
            {"src": "bible", "t": {"en": "light", "de": "Licht"}},
            {"src": "bible", "t": {"de": "allein"}},
            {"src": "mo", "t": {"en": "of unknown licence", "de": "unbekannt"}},
        ],
    )
    write(
        tmp_path / "pairs_asym.jsonl.xz",
        [
            {"src": "help", "lang": "en", "q": "a", "p": "b", "id": "/gnome-help/a.page"},
            {"src": "help", "lang": "en", "q": "c", "p": "d", "id": "/kate/c.docbook"},
            {"src": "recipes", "lang": "de", "q": "e", "p": "f", "label": "soup"},
            {"src": "debdesc", "lang": "en", "q": "g", "p": "h", "id": "x"},
        ],
    )
    write(tmp_path / "labels.jsonl.xz", [{"task": "ha_intent", "lang": "en", "text": "on", "label": "HassTurnOn"}])
    for lang, text in (("en", "a man\tthe man\t4.5\n"), ("de", "ein Mann\tder Mann\t4.5\n")):
        with lzma.open(tmp_path / f"stsb-{lang}-train.tsv.xz", "wt", encoding="utf-8") as file:
            file.write(text)
        with lzma.open(tmp_path / f"stsb-{lang}-dev.tsv.xz", "wt", encoding="utf-8") as file:
            file.write("never\tread\t0\n")
    return tmp_path


def test_only_named_sources_and_documents_are_read(folder):
    corpora = read_corpora(folder, folder)
    assert [s.texts for s in corpora.segments["bible"]] == [{"en": "light", "de": "Licht"}]
    assert "mo" not in corpora.segments and "debdesc" not in corpora.pairs
    assert [p.query for p in corpora.pairs["help"]] == ["a"]
    assert corpora.pairs["recipes"][0].label == "soup"
    assert corpora.labels["ha_intent"][0].text == "on"


def test_equal_rows_of_stsb_are_translations(folder):
    corpora = read_corpora(folder, folder)
    assert [s.texts for s in corpora.segments["stsb"]] == [
        {"de": "ein Mann", "en": "a man"},
        {"de": "der Mann", "en": "the man"},
    ]
    assert corpora.graded["en"][0].score == 4.5


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"par\.jsonl\.xz"):
        read_corpora(tmp_path, tmp_path)
