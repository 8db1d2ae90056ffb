from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.evaluate.sets import SHIPPED
from fivefold.train.builder.rows import LANGUAGES, Aligned, Asked, Classed, Row
from fivefold.train.builder.sieve import HELD_ARTICLES, SHIPPED_SETS, Sieve, held_articles
from tests.train.builder.conftest import ARTICLE

SECRET = "Nobody was to know how many of the seven lighthouses had been sold to the baker."


@pytest.fixture
def folder(tmp_path: Path, few_sets: Path) -> Path:
    (tmp_path / "secret.txt").write_text(SECRET + "\n")
    return tmp_path


@pytest.fixture
def sieve(folder: Path) -> Sieve:
    return Sieve(frozenset(LANGUAGES), [folder], near=0.8)


def reasons(sieve: Sieve, *rows: Row) -> list[str]:
    """Why each row was dropped, in turn, or the empty string."""
    found = []
    for row in rows:
        before = sieve.dropped[row.file, row.source].copy()
        kept = list(sieve.through([row]))
        after = sieve.dropped[row.file, row.source]
        assert len(kept) + sum((after - before).values()) == 1
        found.append(next(iter(after - before), ""))
    return found


def test_the_shipped_sets_are_those_of_the_evaluation() -> None:
    assert SHIPPED_SETS.samefile(SHIPPED)


def test_why_rows_are_dropped(sieve: Sieve) -> None:
    assert reasons(
        sieve,
        Asked("help", "en", "Lighthouses", "They shine."),
        Asked("help", "en", "lighthouses!", "they shine", id="elsewhere"),
        Asked("help", "de", "Lighthouses", "They shine."),
        Asked("lohelp", "en", "Lighthouses", "They shine."),
        Asked("help", "eu", "Itsasargiak", "Distira."),
        Asked("help", "en", "***", "They shine too."),
        Asked("help", "en", "Lights", "They shine Ã©very night."),
        Asked("help", "de", "Leuchten", "Choose the lights that you want to have, and then go on with the next step."),
        Asked("help", "en", "Who bought lighthouses?", SECRET.replace("Nobody", "Somebody")),
        Aligned("bible", {"en": "alone"}),
        Aligned("bible", {"de": "ein Haus", "fr": "une maison"}),
        Aligned("bible", {"en": SECRET, "de": "ein Haus"}),
        Aligned("bible", {"en": "a house", "de": "ein Haus"}),
        Classed("ha_intent", "it", "accendi la luce", "TurnOn"),
        Classed("ha_intent", "de", "mach das Licht an", "TurnOn"),
    ) == [
        "",
        "twice",
        "",
        "",
        "language",
        "no words",
        "broken",
        "not in its language",
        "evaluation text",
        "no translation",
        "no translation",
        "evaluation text",
        "",
        "held out",
        "",
    ]


def test_no_article_of_the_retrieval_set_comes_through(sieve: Sieve) -> None:
    title, lead = ARTICLE["title"], ARTICLE["p"]
    assert reasons(
        sieve,
        Asked("vital_title", "en", title, "another lead", title),
        Classed("vitaltopic", "en", "another text", "en:Arts", title),
        Asked("vital_desc", "en", "another description", lead, "another title"),
        Asked("vital_desc", "en", ARTICLE["desc"], "another lead", "another title"),
        Asked("vital_title", "fr", title, "another lead", title),
    ) == ["held out", "held out", "evaluation text", "evaluation text", ""]


def test_the_articles_that_are_held_out_are_those_of_the_set_that_ships() -> None:
    held = held_articles(SHIPPED_SETS / HELD_ARTICLES)
    assert len(held) == 7743 and ("en", "Academy Awards") in held


def test_languages_that_are_not_wanted_leave_a_segment(folder: Path) -> None:
    sieve = Sieve(frozenset({"en", "de"}), [folder], near=0.8)
    (row,) = sieve.through([Aligned("cldr", {"de": "Zelt", "en": "tent", "fr": "tente"})])
    assert row.strings == ("Zelt", "tent")


def test_translations_that_are_evaluation_text_leave_a_segment(sieve: Sieve) -> None:
    (row,) = sieve.through([Aligned("cldr", {"de": SECRET, "en": "tent", "fr": "tente", "it": "***"})])
    assert row.strings == ("tent", "tente")
    assert sieve.dropped["par.jsonl.xz", "cldr"] == {"translation: evaluation text": 1}


def test_translations_that_are_none_leave_a_segment(sieve: Sieve) -> None:
    texts = {
        "de": "Wählen Sie die Lampen, die leuchten sollen.",
        "en": "Choose the lights that are to shine.",
        "fr": "Choose the lights that are to shine, s'il vous plaît.",
        "it": "Scegli le luci \x9d che devono brillare.",
        "ja": "Choose 光 that are to shine.",
    }
    (row,) = sieve.through([Aligned("mo", texts)])
    assert list(row.languages) == ["de", "en"]
    assert sieve.dropped["par.jsonl.xz", "mo"] == {"translation: not in its language": 2, "translation: broken": 1}


def test_a_cap_draws_the_same_rows_in_their_order(sieve: Sieve) -> None:
    rows = [Asked("wordnet", lang, f"word {n}", "gloss") for n in range(50) for lang in ("en", "de")]
    kept = list(sieve.capped(rows, 10, seed=0))
    assert [rows.index(row) for row in kept] == sorted(rows.index(row) for row in kept)
    assert [row.lang for row in kept].count("en") == [row.lang for row in kept].count("de") == 10
    assert sieve.dropped["pairs_asym.jsonl.xz", "wordnet"] == {"over the cap": 80}
    assert kept == list(sieve.capped(rows, 10, seed=0)) != list(sieve.capped(rows, 10, seed=1))
