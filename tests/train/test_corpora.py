import pytest

from fivefold.errors import MissingFileError
from fivefold.train.corpora import read_corpora
from tests.train import toys


@pytest.fixture
def folder(tmp_path):
    toys.write_lines(
        tmp_path / "par.jsonl.xz",
        [
            {"src": "bible", "t": {"en": "light", "de": "Licht"}},
            {"src": "bible", "t": {"de": "allein"}},
            {"src": "mo", "t": {"en": "of unknown licence", "de": "unbekannt"}},
        ],
    )
    toys.write_lines(
        tmp_path / "pairs_asym.jsonl.xz",
        [
            {"src": "help", "lang": "en", "q": "a", "p": "b", "id": "/gnome-help/a.page"},
            {"src": "help", "lang": "en", "q": "c", "p": "d", "id": "/kate/c.docbook"},
            {"src": "recipes", "lang": "de", "q": "e", "p": "f", "label": "soup"},
            {"src": "debdesc", "lang": "en", "q": "g", "p": "h", "id": "x"},
        ],
    )
    toys.write_lines(
        tmp_path / "labels.jsonl.xz",
        [{"task": "ha_intent", "lang": lang, "text": "on", "label": "HassTurnOn"} for lang in ("en", "it")],
    )
    for lang, text in (("en", "a man\tthe man\t4.5"), ("de", "ein Mann\tder Mann\t4.5")):
        toys.write_lines(tmp_path / f"stsb-{lang}-train.tsv.xz", [text])
        toys.write_lines(tmp_path / f"stsb-{lang}-dev.tsv.xz", ["never\tread\t0"])
    return tmp_path


def test_only_named_sources_and_documents_are_read(folder):
    corpora = read_corpora(folder, folder)
    assert [s.texts for s in corpora.segments["bible"]] == [{"en": "light", "de": "Licht"}]
    assert "mo" not in corpora.segments and "debdesc" not in corpora.pairs
    assert [p.query for p in corpora.pairs["help"]] == ["a"]
    assert corpora.pairs["recipes"][0].label == "soup"
    assert [row.lang for row in corpora.labels["ha_intent"]] == ["en"]  # the Italian ones are evaluated on


def test_rows_of_a_source_of_several_licences_say_theirs(folder):
    licences = {"free": "MPL-2.0", "weak": "LGPL-2.1", "strong": "GPL-2.0 or GPL-3.0"}
    rows = [{"src": "mo", "licence": licence, "t": {"en": en, "de": en}} for en, licence in licences.items()]
    toys.write_lines(folder / "par.jsonl.xz", [*rows, {"src": "mo", "t": {"en": "of unknown licence", "de": "?"}}])
    assert [s.texts["en"] for s in read_corpora(folder, folder).segments["mo"]] == ["free", "weak"]


def test_equal_rows_of_stsb_are_translations(folder):
    corpora = read_corpora(folder, folder)
    assert [s.texts for s in corpora.segments["stsb"]] == [
        {"de": "ein Mann", "en": "a man"},
        {"de": "der Mann", "en": "the man"},
    ]
    assert corpora.graded["en"][0].score == 4.5


def test_what_rows_have_in_common_is_in_memory_once(folder):
    row = {"src": "vital_title", "lang": "fr", "q": "a title", "p": "a lead of several words"}
    toys.write_lines(folder / "pairs_asym.jsonl.xz", [row, {**row, "src": "vital_desc", "q": "a description"}])
    corpora = read_corpora(folder, folder)
    (title,), (description,) = corpora.pairs["vital_title"], corpora.pairs["vital_desc"]
    assert title.passage is description.passage and title.lang is description.lang


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"par\.jsonl\.xz"):
        read_corpora(tmp_path, tmp_path)
