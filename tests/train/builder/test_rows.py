"""train/builder/rows.py: what every reader does to text, and what the files of the corpora hold of a row."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.train.builder.rows import LANGUAGES, Aligned, Asked, Classed, Paired, Row, clean, clipped, language

TEXT = st.text(st.sampled_from("ab é日\u00ad\u200b\u200c\u200d\u200e\u202a\u2066\ufeff\u00a0\u3000\n\t"), max_size=30)


@given(TEXT)
def test_clean_text_has_its_letters_and_joiners_single_spaces_and_nothing_unseen(text: str) -> None:
    found = clean(text)
    assert clean(found) == found == found.strip() and "  " not in found
    assert set(found) <= set("ab é日\u200c\u200d")  # joiners are part of words in Persian and Hindi
    seen = [c for c in text if c in "abé日\u200c\u200d"]
    assert [c for c in found if c != " "] == seen


@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=30).map(" ".join), st.integers(10, 60))
def test_a_clipped_text_is_a_beginning_that_ends_with_a_word_if_it_can(text: str, longest: int) -> None:
    found = clipped(text, longest)
    assert text.startswith(found) and len(found) <= longest
    assert (found == text) is (len(text) <= longest)
    if found != text:
        assert len(found) >= longest * 4 // 5
        whole = text[len(found)] == " "
        assert whole or " " not in text[longest * 4 // 5 : longest]


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("C", "en"),
        ("en_US", "en"),
        ("pt_BR", "pt"),
        ("PT-br", "pt"),
        ("zh_CN", "zh"),
        ("no", "nb"),
        ("nb", "nb"),
        ("de", "de"),
    ],
)
def test_codes_of_packages_become_ours(code: str, ours: str) -> None:
    assert language(code) == ours and ours in LANGUAGES


@pytest.mark.parametrize("code", ["en_GB", "zh_TW", "de_CH", "sr@latin", ""])
def test_other_regional_forms_are_languages_that_are_not_kept(code: str) -> None:
    assert language(code) not in LANGUAGES


@pytest.mark.parametrize(
    ("row", "empty"),
    [
        (Aligned("s", {"de": "eins", "en": "one"}), ()),
        (Asked("s", "de", "frage", "antwort", "doc", "klasse"), ("id", "label")),
        (Classed("s", "de", "eins", "zahl", "doc"), ("id",)),
        (Paired("s", "en", "de", "one", "eins"), ()),
    ],
    ids=lambda row: type(row).__name__,
)
def test_a_row_of_a_file_holds_all_that_there_is_of_it_and_nothing_empty(row: Row, empty: tuple[str, ...]) -> None:
    raw = row.raw()
    told = json.dumps(raw, ensure_ascii=False)
    values = [getattr(row, field.name) for field in fields(row)]
    for value in (*row.strings, *row.languages, *(v for v in values if isinstance(v, str))):
        assert f'"{value}"' in told
    bare = type(row)(**{f.name: "" if f.name in empty else getattr(row, f.name) for f in fields(row)})  # type: ignore[arg-type]
    assert bare.raw() == {name: value for name, value in raw.items() if name not in empty}
