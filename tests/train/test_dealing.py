from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from fivefold.train.corpora import Corpora, Graded, Labelled, Pair, Segment
from fivefold.train.dealing import Dealer, Sets, dealt, draw_sentence, english_pairs, labelled_sources
from fivefold.train.families import FAMILIES, prepared
from fivefold.train.nano import DEALS
from fivefold.train.neighbours import Cells

LANGS = ("en", "es", "de")


def corpora() -> Corpora:
    found = Corpora()
    for name in ("bible", "stsb", "lohelp"):
        found.segments[name] = [Segment({lang: f"{name}{lang}{i}" for lang in LANGS}) for i in range(40)]
    for name in ("vital_title", "help"):
        rows = [
            Pair(lang, f"{name}{lang}{i}", f"{lang}x{i} and so on and so forth. {lang}y{i}")
            for lang in LANGS
            for i in range(40)
        ]
        found.pairs[name] = rows
    for name in ("vitaltopic", "ha_intent"):
        found.labels[name] = [Labelled(lang, f"{name}{lang}{i}", "abc"[i % 3]) for lang in LANGS for i in range(40)]
    for lang in LANGS:
        found.graded[lang] = [Graded(lang, f"{lang}a{i}", f"{lang}b{i}", i % 6) for i in range(40)]
    return found


def dealer(seed: int = 0) -> Dealer:
    return Dealer(corpora(), rows=480, batch=8, seed=seed)


def language(text: str) -> str:
    return next(lang for lang in LANGS if lang in text)


@pytest.mark.parametrize("deal", [Dealer.retrieval, Dealer.pairs])
def test_rows_of_a_set_share_their_languages(deal: Callable[[Dealer], Sets]) -> None:
    """Or the language of the query would give the passage away."""
    crossed = 0
    for rows in deal(dealer()).values():
        assert len(rows) % 8 == 0
        sides = [{language(getattr(row, side)) for row in rows} for side in ("query", "passage")]
        assert all(len(langs) == 1 for langs in sides)
        crossed += sides[0] != sides[1]
    assert crossed >= 2


def test_classes_go_across_languages() -> None:
    for name, rows in dealer().separation().items():
        first = [row for row in rows[:32] if isinstance(row, Labelled)]
        assert {row.lang for row in first} == set(LANGS), name


def test_topics_of_three_wikipedias_are_one_set_of_classes() -> None:
    found = Corpora()
    labels = ("en:Arts", "es:Artes", "fr:Arts et culture", "en:People", "es:Personas", "en:History", "pt:Artes")
    found.labels["vitaltopic"] = [Labelled(label[:2], label, label) for label in labels]
    kept = {row.text: row.label for row in labelled_sources(found)["vitaltopic"]}
    assert kept == {
        "en:Arts": "en:Arts",
        "es:Artes": "en:Arts",
        "fr:Arts et culture": "en:Arts",
        "en:History": "en:History",
        "pt:Artes": "pt:Artes",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_learn_from_what_it_is_dealt(family: str) -> None:
    sets = DEALS[family](dealer())
    assert 200 < sum(len(rows) for rows in sets.values()) <= 560
    again = DEALS[family](dealer())
    assert sets == again and sets != DEALS[family](dealer(seed=1))
    for data, _ in prepared(family, sets, 0).values():
        assert len(data) >= 8


def test_pairs_stand_beside_classes_for_classification_and_not_for_separation() -> None:
    kinds = {family: {type(rows[0]) for rows in DEALS[family](dealer()).values()} for family in FAMILIES}
    assert kinds["classification"] == {Labelled, Pair} and kinds["separation"] == {Labelled}


@pytest.mark.parametrize("family", ["retrieval", "text-matching", "classification"])
def test_pairs_come_in_batches_of_neighbours_where_something_reads_them(family: str) -> None:
    def read(texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), sum(map(ord, text)) % 97] for text in texts], np.float32)

    sets = DEALS[family](Dealer(corpora(), rows=480, batch=8, seed=0, read=read))
    cells = {name: rows for name, rows in sets.items() if isinstance(rows, Cells)}
    assert cells and all(rows and len(rows) % 8 == 0 for rows in cells.values())
    assert any(not isinstance(rows[0], Pair) or "across" in name for name, rows in sets.items() if name not in cells)
    assert set(sets) <= set(DEALS[family](dealer()))


def test_a_kind_of_row_may_have_a_temperature_of_its_own() -> None:
    sets = DEALS["text-matching"](dealer())
    found = prepared("text-matching", sets, 0, {Graded: 0.1})
    kinds = {name: type(rows[0]) for name, rows in sets.items()}
    scales = {kinds[name]: loss(torch.nn.Identity(), (), None).scale for name, (_, loss) in found.items()}
    assert scales == {Graded: pytest.approx(10), Pair: pytest.approx(20)}  # the family's is 0.05


def test_small_languages_are_lifted_and_tiny_ones_left_out() -> None:
    rows = [Labelled("en", str(i), "a") for i in range(900)] + [Labelled("ka", str(i), "a") for i in range(100)]
    rows += [Labelled("xx", str(i), "a") for i in range(3)]
    found = dealt(rows, 400, 10, np.random.default_rng(0))
    assert set(found) == {"en", "ka"}
    assert 80 <= len(found["ka"]) <= 120  # 10 / (30 + 10 + 1.7), not 0.1
    assert len({row.text for row in found["en"]}) == len(found["en"])  # none twice while there are enough


def test_graded_pairs_cross_languages_now_and_then() -> None:
    graded = [row for row in dealer().matching()["graded"] if isinstance(row, Graded)]
    crossed = sum(language(row.first) != language(row.second) for row in graded)
    assert 0.2 < crossed / len(graded) < 0.5
    assert all(row.first[3:] == row.second[3:] for row in graded)


def test_sentences_and_english() -> None:
    rng = np.random.default_rng(0)
    text = "A first sentence that is long enough to count. Short. Another sentence that is long enough, too"
    assert {draw_sentence(rng, text) for _ in range(30)} == {text.split(". ")[0], text.split(". ")[2]}
    assert draw_sentence(rng, "Too short. All of it") == "Too short. All of it"
    assert english_pairs([Segment({"en": "a", "de": "b", "fr": "c"})]) == [Pair("de", "b", "a"), Pair("fr", "c", "a")]
