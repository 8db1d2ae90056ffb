"""train/builder/lohelp.py: pages of the help to sections, and switches between systems to one text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.train.builder import lohelp
from fivefold.train.builder.rows import Aligned, Asked, Wanted
from tests.train.builder import packages

LONG = "This paragraph number {} is long enough to be a passage that is asked for by its heading."
OTHER = "Dieser Absatz mit der Nummer {} ist so lang, dass eine Frage nach ihm gestellt werden kann."
ROOT = "usr/share/libreoffice/help"


def block(key: str, text: str, tag: str = "p") -> str:
    return f'<{tag} id="{key}" dir="auto">{text}</{tag}>'


def read(folder: Path, *languages: tuple[str, Mapping[str, str]]) -> tuple[list[dict[str, str]], list[Asked]]:
    """A package for each language, of pages by name, read from the zipped form, which needs no other program."""
    paths = [
        packages.wheel(
            folder / f"help-{code}.whl", {f"{ROOT}/{code}/text/{name}": page for name, page in pages.items()}
        )
        for code, pages in languages
    ]
    rows = list(lohelp.read(paths, Wanted()))
    aligned = [dict(row.texts) for row in rows if isinstance(row, Aligned)]
    return aligned, [row for row in rows if isinstance(row, Asked)]


@dataclass(frozen=True)
class Piece:
    """HTML, and what of it is shown."""

    html: str
    shown: str


def plain(word: str) -> Piece:
    return Piece(word, word)


def switch(alternatives: list[tuple[str, Piece]]) -> Piece:
    """What stands for all others, wherever it stands; without it the first that is not for a Mac; else nothing."""
    tags = {"default": 'hidden="true" id="default_1"', "mac": 'class="MAC"', "own": 'hidden="true" class="WRITER"'}
    spans = "".join(f"<span {tags[kind]}>{piece.html}</span>" for kind, piece in alternatives)
    kept = [p for kind, p in alternatives if kind == "default"] + [p for kind, p in alternatives if kind != "mac"]
    return Piece(f'<span id="s" class="switchinline">{spans}</span>', kept[0].shown if kept else "")


def joined(pieces: list[Piece]) -> Piece:
    return Piece("".join(p.html for p in pieces), "".join(p.shown for p in pieces))


PIECES = st.recursive(
    st.sampled_from(["ab", "cd ", " ef", "日"]).map(plain),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(joined),
        inner.map(lambda p: Piece(f'<span class="key">{p.html}</span>', p.shown)),
        st.lists(st.tuples(st.sampled_from(["default", "mac", "own"]), inner), max_size=3).map(switch),
    ),
    max_leaves=8,
)


@given(PIECES)
def test_of_every_switch_one_alternative_is_shown_however_they_stand_in_one_another(piece: Piece) -> None:
    assert lohelp.TAG.sub("", lohelp._switched(f"a {piece.html} b")) == f"a {piece.shown} b"


@given(
    st.lists(
        st.sampled_from(['<span class="switchinline">', "<span>", "</span>", '<span class="MAC">', "x"]), max_size=12
    )
)
def test_spans_that_are_never_closed_end_the_reading_of_a_page_none_the_less(tags: list[str]) -> None:
    """Pages are written by a program, and one day by another."""
    assert "switchinline" not in lohelp._switched("".join(tags))


def test_a_word_of_the_index_leads_to_the_first_section_after_it(tmp_path: Path) -> None:
    word = '<meta itemprop="keywords" content="{}">'
    page = "".join(
        (
            block("nav", LONG.format(0)),
            word.format(""),
            word.format("cells;deleting &amp; more"),
            word.format("another"),
            block("h1", "Cells", "h1"),
            block("p1", LONG.format(1)),
            block("h2", "Rows", "h2"),
            block("p2", LONG.format(2)),
            block("h3", "", "h3"),
            block("p3", LONG.format(3)),
        )
    )
    aligned, asked = read(tmp_path, ("en-US", {"a.html": page, "sub/b.html": page.replace("number", "of number")}))
    first = [(row.source, row.query, row.passage) for row in asked if row.id == "a.html"]
    assert first == [
        ("lohelp", "Cells", LONG.format(1)),
        ("lohelp_kw", "cells;deleting & more", LONG.format(1)),
        ("lohelp", "Cells: Rows", f"{LONG.format(2)} {LONG.format(3)}"),
    ]
    assert {row.id for row in asked} == {"a.html", "sub/b.html"}
    assert LONG.format(0) not in {text["en"] for text in aligned}  # above the first heading there is navigation


@pytest.mark.parametrize(("english", "asked_for"), [(3, True), (4, False)])
def test_a_section_of_which_much_is_english_still_is_not_asked_for(
    english: int, asked_for: bool, tmp_path: Path
) -> None:
    def page(texts: list[str]) -> str:
        return block("h", "Cells", "h1") + "".join(block(f"p{n}", text) for n, text in enumerate(texts))

    theirs = [LONG.format(n) if n < english else OTHER.format(n) for n in range(10)]
    aligned, asked = read(
        tmp_path, ("en-US", {"a.html": page([LONG.format(n) for n in range(10)])}), ("de", {"a.html": page(theirs)})
    )
    german = [row for row in asked if row.lang == "de"]
    assert bool(german) is asked_for and all("This paragraph" not in row.passage for row in german)
    assert [row.get("de") for row in aligned] == [None if n < english else OTHER.format(n) for n in range(10)]


def test_paragraphs_are_aligned_by_page_and_id_and_each_english_text_once(tmp_path: Path) -> None:
    """Ids repeat from page to page, and so do texts; code is no text, and what only one language has is none."""
    english = {
        "a.html": block("p1", LONG.format(1)) + block("p2", "Call run(x) {now} at once."),
        "b.html": block("p1", LONG.format(2)),
    }
    german = {
        "a.html": block("p1", OTHER.format(1)) + block("p2", "Rufen Sie gleich auf.") + block("p9", OTHER.format(9)),
        "b.html": block("p1", OTHER.format(2)),
        "c.html": block("p1", OTHER.format(3)),
    }
    heading = block("h", "Cells", "h1")
    again = {"z.html": heading + block("other", LONG.format(1))}
    aligned, _ = read(
        tmp_path,
        ("en-US", {name: heading + page for name, page in english.items()} | again),
        (
            "de",
            {name: heading + page for name, page in german.items()}
            | {"z.html": heading + block("other", "Noch einmal anders.")},
        ),
    )
    assert aligned == [
        {"de": OTHER.format(1), "en": LONG.format(1)},
        {"de": OTHER.format(2), "en": LONG.format(2)},
    ]
