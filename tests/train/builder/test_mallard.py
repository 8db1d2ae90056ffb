"""train/builder/mallard.py: which blocks of a manual are aligned, and which sections are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from fivefold.train.builder import mallard
from fivefold.train.builder.rows import Aligned, Asked, Wanted
from tests.train.builder import packages

LONG = "This paragraph number {} is long enough to be a passage that is asked for by its heading."
OTHER = "Dieser Absatz mit der Nummer {} ist so lang, dass eine Frage nach ihm gestellt werden kann."


def page(*parts: str, title: str = "Title", desc: str = "") -> str:
    info = f"<info><desc>{desc}</desc></info>" if desc else ""
    space = 'xmlns="http://projectmallard.org/1.0/" xmlns:if="http://projectmallard.org/if/1.0/"'
    return f"<page {space} id='a'>{info}<title>{title}</title>{''.join(parts)}</page>"


def paragraphs(*texts: str) -> str:
    return "".join(f"<p>{text}</p>" for text in texts)


def section(title: str, *parts: str) -> str:
    return f"<section><title>{title}</title>{''.join(parts)}</section>"


def read(
    folder: Path, pages: Mapping[str, str], languages: Sequence[str] = ("en", "de", "fr", "pt")
) -> tuple[list[dict[str, str]], list[Asked]]:
    """A package with these pages, in this order, read from the zipped form, which needs no other program."""
    files = {f"usr/share/help/{code}/help/a.page": text for code, text in {"kn": page(), **pages}.items()}
    rows = list(mallard.read([packages.wheel(folder / "manual.whl", files)], Wanted(frozenset(languages))))
    aligned = [dict(row.texts) for row in rows if isinstance(row, Aligned)]
    return aligned, [row for row in rows if isinstance(row, Asked)]


def test_the_english_page_may_come_last_in_the_archive(tmp_path: Path) -> None:
    pages = {
        "de": page(paragraphs(OTHER.format(1))),
        "fr": page(paragraphs(LONG.format(1))),
        "C": page(paragraphs(LONG.format(1))),
    }
    aligned, asked = read(tmp_path, pages)
    assert aligned == [{"de": OTHER.format(1), "en": LONG.format(1)}]  # "Title" is too short, French is English still
    assert [(row.lang, row.passage) for row in asked] == [("en", LONG.format(1)), ("de", OTHER.format(1))]


def test_a_page_of_more_or_fewer_blocks_is_not_aligned_and_its_sections_are_asked_for(tmp_path: Path) -> None:
    pages = {"C": page(paragraphs(LONG.format(1), LONG.format(2))), "de": page(paragraphs(OTHER.format(1)))}
    aligned, asked = read(tmp_path, pages)
    assert aligned == [{"en": LONG.format(1)}, {"en": LONG.format(2)}]
    assert [row.passage for row in asked if row.lang == "de"] == [OTHER.format(1)]


def test_of_two_forms_of_a_language_the_first_is_aligned_and_those_not_kept_are_not_read(tmp_path: Path) -> None:
    texts = {
        "C": LONG,
        "pt_BR": "Brasil " + OTHER,
        "pt": "Portugal " + OTHER,
        "en_GB": "Britain " + LONG,
        "fr": "France " + OTHER,
    }
    pages = {code: page(paragraphs(text.format(1))) for code, text in texts.items()}
    aligned, asked = read(tmp_path, pages, ("en", "pt"))
    assert aligned == [{"en": LONG.format(1), "pt": "Brasil " + OTHER.format(1)}]
    assert [row.lang for row in asked] == ["en", "pt", "pt"]


@pytest.mark.parametrize(("english", "asked_for"), [(3, True), (4, False), (10, False)])
def test_a_section_of_which_much_is_english_still_is_not_asked_for(
    english: int, asked_for: bool, tmp_path: Path
) -> None:
    """Up to three blocks of ten; what is left of them is the passage."""
    theirs = [LONG.format(n) if n < english else OTHER.format(n) for n in range(10)]
    pages = {"C": page(paragraphs(*map(LONG.format, range(10)))), "de": page(paragraphs(*theirs), title="Titel")}
    _, asked = read(tmp_path, pages)
    german = [row for row in asked if row.lang == "de"]
    assert bool(german) is asked_for
    if german:
        assert german[0].query == "Titel" and "This paragraph" not in german[0].passage


def test_headings_stand_behind_the_title_of_the_page_at_any_depth(tmp_path: Path) -> None:
    inner = section("Inner", paragraphs(LONG.format(3)))
    text = page(
        paragraphs(LONG.format(1)),
        section("Outer", paragraphs(LONG.format(2)), inner),
        section("Short", paragraphs("Too short.")),
    )
    _, asked = read(tmp_path, {"C": text})
    assert {row.query: row.passage for row in asked} == {
        "Title": LONG.format(1),
        "Title: Outer": LONG.format(2),
        "Title: Inner": LONG.format(3),
    }
    assert {(row.source, row.id) for row in asked} == {("help", "/help/a.page")}


@pytest.mark.parametrize(
    "desc", ["Short and own.", "Long enough by itself to be the answer to the title of this page, too."]
)
def test_a_description_asks_for_the_page_and_if_it_is_long_the_title_asks_for_it(desc: str, tmp_path: Path) -> None:
    pages = {"C": page(paragraphs(LONG.format(1)), desc=desc), "de": page(paragraphs(OTHER.format(1)), desc=desc)}
    _, asked = read(tmp_path, pages)
    english = [(row.source, row.query, row.passage) for row in asked if row.lang == "en"]
    own = [("help", "Title", desc)] if len(desc) > 60 else []
    assert english == [("help", "Title", LONG.format(1)), *own, ("help_desc", desc, LONG.format(1))]
    assert [row.source for row in asked if row.lang == "de"] == ["help"]  # there it is English still


def test_what_a_plain_desktop_does_not_show_is_no_text_and_what_follows_it_is(tmp_path: Path) -> None:
    hidden = '<span if:test="platform:other"><span if:test="!a">Hidden</span></span>'
    choice = (
        '<if:choose><if:when test="a b">A</if:when><if:when test="a,!b">B</if:when><if:else>C</if:else></if:choose>'
    )
    text = page(f"<p>{LONG.format(1)} {hidden}Shown. {choice} End.</p>", f'<p if:test="!a !b">{LONG.format(2)}</p>')
    assert read(tmp_path, {"C": text})[0] == [{"en": f"{LONG.format(1)} Shown. C End."}, {"en": LONG.format(2)}]


def test_keys_and_menus_are_told_apart(tmp_path: Path) -> None:
    text = page(
        "<p>Press <keyseq><key>Ctrl</key> <key>Alt</key><key>T</key></keyseq>, and choose "
        "<guiseq><gui>File</gui>\n <gui>New</gui><gui>Tab</gui></guiseq> then.</p>"
    )
    assert read(tmp_path, {"C": text})[0] == [{"en": "Press Ctrl Alt T, and choose File ▸ New ▸ Tab then."}]
