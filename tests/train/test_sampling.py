import numpy as np
import pytest

from fivefold.config import TASKS
from fivefold.train.corpora import Labelled, Pair, Segment
from fivefold.train.sampling import ByLanguage, Mixture, Translations, draw_joined, draw_pair
from fivefold.train.teacher import BREAK
from tests.train import toys


def test_small_languages_are_lifted():
    rows = [Labelled("en", "x", "a")] * 900 + [Labelled("ka", "y", "a")] * 100
    drawn = [ByLanguage(rows).draw(np.random.default_rng(i))[0].lang for i in range(400)]
    assert 0.18 < drawn.count("ka") / 400 < 0.32  # 10 / (30 + 10), not 0.1


def test_every_language_of_a_segment_aims_at_the_english_vector():
    segment = Segment({"en": "sun", "es": "sol", "de": "Sonne"})
    example = Translations([segment]).draw(np.random.default_rng(0), 3)
    assert set(example.texts) == {"sun", "sol", "Sonne"}
    assert example.targets == ("query: sun",) * 3


def test_runs_are_neighbours_of_all_lengths():
    translations = Translations([Segment({"en": f"en{i}", "es": f"es{i}"}) for i in range(40)])
    lengths = set()
    for seed in range(100):
        example = translations.draw_run(np.random.default_rng(seed), 2)
        english = example.targets[0].removeprefix("passage: ").split()
        first = int(english[0][2:])
        assert english == [f"en{first + i}" for i in range(len(english))]
        assert " ".join(english).replace("en", "es") in example.texts
        lengths.add(len(english))
    assert {2, 3, 16} <= lengths <= {*range(2, 17)}


def test_long_documents_aim_at_their_own_vectors_in_one_language():
    segments = [Segment({"en": f"en{i}", "es": f"es{i}"}) for i in range(200)]
    rows = ByLanguage([Pair(lang, "q", f"{lang}{i}") for lang in ("en", "fr") for i in range(40)])
    words = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        for example, least, most, between in (
            (Translations(segments).draw_long(rng), 24, 96, " "),
            (draw_joined(rng, rows), 2, 24, BREAK),
        ):
            (text,) = example.texts
            parts = text.split()
            assert example.targets == example.same == (f"passage: {between.join(parts)}",)
            assert least <= len(parts) <= most and len({part[:2] for part in parts}) == 1
            words.add(parts[0][:2])
    assert words == {"en", "es", "fr"}


def test_pairs_aim_at_their_own_vectors_behind_prompts_or_not():
    rows = ByLanguage([Pair("en", "q", "p")])
    found = {draw_pair(np.random.default_rng(i), rows) for i in range(50)}
    assert {e.targets for e in found} == {("query: q", "passage: p")}
    assert {e.texts for e in found} == {("q", "p"), (TASKS[0].prompt + "q", TASKS[1].prompt + "p")}


def test_a_draw_is_a_function_of_its_generator():
    mixture = Mixture(toys.corpora())
    assert mixture.draw(np.random.default_rng(3), 9) == mixture.draw(np.random.default_rng(3), 9)
    assert mixture.draw(np.random.default_rng(3), 9) != mixture.draw(np.random.default_rng(4), 9)


def test_what_was_drawn_is_said_of_sources_that_are_there():
    corpora = toys.corpora()
    corpora.segments.pop("bible")
    drawn = Mixture(corpora).drawn()
    assert sum(row["share"] for row in drawn) == pytest.approx(1)
    assert {row["source"] for row in drawn} == {"vital_title", "vitaltopic", "ha_intent"}
    assert all(row["licence"] and row["rows"] for row in drawn)
