import numpy as np
import pytest

from fivefold.train.vocabulary import (
    MASK,
    SPECIALS,
    UNK_ID,
    build_tokenizer,
    charsmap,
    choose,
    evidence,
    prune,
    report,
    sample_texts,
    script,
    usefulness,
)
from tests.train import toys


@pytest.fixture(scope="module")
def characters():
    return charsmap()


def test_script_names_the_letters_and_refuses_foreign_ones():
    assert [script(p) for p in ("▁sun", "ж", "漢字", "ー", "12.5", "▁", "ሀ")] == [
        "LATIN",
        "CYRILLIC",
        "CJK",
        "KATAKANA",
        None,
        None,
        "",
    ]


def test_choose_keeps_specials_characters_and_the_most_useful():
    file = toys.teacher_file()
    useful = np.zeros(len(file.pieces))
    useful[[file.pieces.index("▁moon"), file.pieces.index("▁rojo")]] = 1
    characters = [p for p in toys.WORDS if len(p) == 1 and p != "ሀ"]
    kept = choose(file, useful, size=len(SPECIALS) + 1 + len(characters) + 2)
    assert tuple(kept.pieces[:4]) == SPECIALS and kept.pieces[-1] == MASK
    assert set(kept.pieces[4:-1]) == {*characters, "▁moon", "▁rojo"}
    assert [file.pieces[row] for row in kept.rows] == kept.pieces
    assert kept.scores == pytest.approx([float(file.scores[row]) for row in kept.rows])


def test_usefulness_follows_the_counts(characters):
    file = toys.teacher_file()
    tokenizer = build_tokenizer(file.pieces, file.scores, characters)
    useful = usefulness(tokenizer, file.pieces, file.scores, [(1.0, {"en": ["sun sun sun moon"], "es": ["sol"]})])
    at = {piece: useful[i] for i, piece in enumerate(file.pieces)}
    assert at["▁sol"] > at["▁sun"] > at["▁moon"] > at["▁luna"]  # a mean over languages, then over their pieces
    assert useful.sum() == pytest.approx(1, abs=1e-6) and at["ሀ"] == 0


def test_kinds_of_text_are_weighed_within_a_language(characters):
    file = toys.teacher_file()
    tokenizer = build_tokenizer(file.pieces, file.scores, characters)
    for weight, first in ((0.9, "▁sun"), (0.1, "▁moon")):
        counted = [(weight, {"en": ["sun"]}), (1 - weight, {"en": ["moon"], "es": ["sol"]})]
        useful = dict(zip(file.pieces, usefulness(tokenizer, file.pieces, file.scores, counted), strict=True))
        assert max(useful, key=useful.__getitem__) == "▁sol"  # all that Spanish has
        assert max(("▁sun", "▁moon"), key=useful.__getitem__) == first


def test_samples_are_even_over_sources_and_of_tuned_languages_only():
    sources = [{"en": [f"a{i}" for i in range(9)], "xx": ["x"]}, {"en": ["b0", "b1", "b2"], "de": ["c"]}]
    found = sample_texts(sources, per_language=4, seed=0)
    assert set(found) == {"en", "de"} and found["de"] == ["c"]
    assert sorted(text[0] for text in found["en"]) == ["a", "a", "b", "b"]


def test_evidence_joins_training_text_sentences_and_words(tmp_path):
    toys.write_lines(tmp_path / "par.jsonl.xz", [{"src": "mo", "t": {"en": "hello", "zh-Hant": "你好"}}])
    toys.write_lines(
        tmp_path / "lex.jsonl.xz", [{"src": "freedict", "a": "deu", "b": "xho", "x": "Mond", "y": "inyanga"}]
    )
    kinds = [texts for _, texts in evidence(tmp_path, toys.corpora(), per_language=100, seed=0)]
    assert kinds[1:] == [{"en": ["hello"], "zh": ["你好"]}, {"de": ["Mond"]}]
    assert "sun shines" in kinds[0]["en"] and "sol" in kinds[0]["es"]


def test_kept_pieces_segment_as_before(characters):
    file = toys.teacher_file()
    full = build_tokenizer(file.pieces, file.scores, characters)
    vocabulary, kept = prune(file, [(1.0, {"en": ["sun moon"]})], size=len(file.pieces) - 3)
    for text in ("sun", "red sun  moon", "sol rojo", "luna"):
        before = full.encode(text)
        if set(before.ids) <= set(vocabulary.rows):
            assert kept.encode(text).tokens == before.tokens


def test_normaliser_is_xlm_r_s(characters):
    file = toys.teacher_file()
    normalise = build_tokenizer(file.pieces, file.scores, characters).normalizer.normalize_str
    assert normalise("ﬁve\u00a0 \tＡ\u200dB\u0007") == "five A B"


def test_template_and_report(characters):
    file = toys.teacher_file()
    tokenizer = build_tokenizer(file.pieces, file.scores, characters)
    assert tokenizer.encode("sun").tokens == ["<s>", "▁sun", "</s>"]
    assert tokenizer.encode("  ").tokens == ["<s>", "</s>"]
    assert tokenizer.encode("漢").ids[2] == UNK_ID
    assert report(tokenizer, tokenizer, {"en": ["sun moon"]}) == {"en": {"unk": 0, "length": 1}}
