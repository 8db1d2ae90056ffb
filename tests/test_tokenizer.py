"""tokenizer.py: prompts, offsets, truncation, odd strings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.errors import CheckpointError, InputError, MissingFileError, TextTooLongError
from fivefold.tokenizer import NOT_TEXT, Tokenizer, check_texts
from tests import toy


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The toy tokenizer."""
    return toy.tokenizer()


def test_the_prompt_goes_before_the_text(tokenizer: Tokenizer) -> None:
    """Ids are those of prompt and text as one string, as the reference has it."""
    [sequence], _ = tokenizer.sequences(["fox"], ["retrieval.query"], max_length=64, truncate=True)
    prompt = "Represent the query for retrieving evidence documents: "
    assert sequence.input_ids.tolist() == tokenizer.rust.encode(prompt + "fox").ids
    assert sequence.task_id == 0
    assert sequence.spans.tolist() == [[0, len(sequence)]]


@pytest.mark.parametrize("task", [None, "retrieval.passage"])
@pytest.mark.parametrize("text", toy.TEXTS[:10])
def test_offsets_are_the_words_of_the_text(tokenizer: Tokenizer, text: str, task: str | None) -> None:
    """Pieces spell the text without its spaces; prompt and special tokens stand for nothing."""
    tokens = tokenizer.tokens(text, task)
    pieces = [tokenizer.rust.id_to_token(i) for i in tokens.input_ids]
    words = [text[a:b] for (a, b), piece in zip(tokens.offsets, pieces, strict=True) if a != NOT_TEXT and piece != "▁"]
    assert "".join(words) == text.replace(" ", "")
    assert (tokens.offsets[: tokens.prefix] == NOT_TEXT).all()
    assert (tokens.offsets[-tokens.suffix :] == NOT_TEXT).all()
    prompt = "".join(pieces[1 : tokens.prefix]).replace("▁", " ")
    assert prompt.strip() == tokenizer.config.prompt(task).strip()


def test_truncation_keeps_the_end_token_and_counts(tokenizer: Tokenizer) -> None:
    """First tokens and the end token stay; the rest is counted."""
    long, short = toy.TEXTS[0], "fox"
    whole = tokenizer.rust.encode(long).ids
    sequences, cut = tokenizer.sequences([long, short], [None, None], max_length=10, truncate=True)
    assert sequences[0].input_ids.tolist() == [*whole[:9], 2]
    assert (cut.texts, cut.tokens) == (1, len(whole) - 10)
    with pytest.raises(TextTooLongError, match=rf"text 0 has {len(whole)} tokens, the limit is 10"):
        tokenizer.sequences([long, short], [None, None], max_length=10, truncate=False)


def test_truncated_offsets_stay_with_their_tokens(tokenizer: Tokenizer) -> None:
    """Cutting drops offsets together with ids."""
    [cut], _ = tokenizer.sequences([toy.TEXTS[0]], [None], max_length=10, truncate=True, offsets=True)
    [full], _ = tokenizer.sequences([toy.TEXTS[0]], [None], max_length=64, truncate=True, offsets=True)
    assert cut.offsets is not None and full.offsets is not None
    np.testing.assert_array_equal(cut.offsets[:9], full.offsets[:9])
    np.testing.assert_array_equal(cut.offsets[9], full.offsets[-1])


def test_no_room_beside_the_prompt(tokenizer: Tokenizer) -> None:
    """A limit that the prompt alone fills is an error, not an empty text."""
    with pytest.raises(InputError, match="leaves no room"):
        tokenizer.room("retrieval.query", 5)


@pytest.mark.parametrize("value", [0, -1, 65, 1.5, "8", True])
def test_limits_the_model_does_not_have(tokenizer: Tokenizer, value: object) -> None:
    """Only whole numbers up to the model's length."""
    with pytest.raises(InputError, match="max_length must be"):
        tokenizer.check_length(value)  # type: ignore[arg-type]


@given(st.text(st.characters(), max_size=60))
@settings(max_examples=150)
def test_any_string_has_tokens_and_ordered_offsets(tokenizer: Tokenizer, text: str) -> None:
    """Lone surrogates, NUL, controls: ids exist and offsets stay inside the text, in order."""
    tokens = tokenizer.tokens(text, None)
    inside = tokens.offsets[tokens.prefix : len(tokens.input_ids) - tokens.suffix]
    assert len(tokens.input_ids) >= 2
    assert ((inside >= 0) & (inside <= len(text))).all()
    assert (np.diff(inside[:, 0]) >= 0).all()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (b"bytes", "got bytes"),
        ({"a": 1}, "got dict"),
        (5, "got int"),
        (None, "got NoneType"),
        (["a", None], "text 1 must be a string, got NoneType"),
        (["a", 3.5], "text 1 must be a string, got float"),
    ],
)
def test_what_is_not_text(texts: object, message: str) -> None:
    """Named by position and type."""
    with pytest.raises(InputError, match=message):
        check_texts(texts)  # type: ignore[arg-type]


def test_files(tmp_path: Path) -> None:
    """Missing, malformed, and of another model."""
    with pytest.raises(MissingFileError, match="tokenizer.json"):
        Tokenizer.from_folder(tmp_path, toy.config())
    path = tmp_path / "tokenizer.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        Tokenizer.from_folder(tmp_path, toy.config())
    toy.rust_tokenizer().save(str(path))
    with pytest.raises(CheckpointError, match="different models"):
        Tokenizer.from_folder(tmp_path, toy.config(vocab_size=50))


def test_rounds_of_many_texts_are_those_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each text once, with the number of the first; none gives one empty round."""
    tokenizer, texts = toy.tokenizer(), toy.TEXTS[:7]
    options = {"max_length": 12, "truncate": True}
    whole, cut = tokenizer.sequences(texts, [None] * 7, **options)
    monkeypatch.setattr("fivefold.tokenizer.TEXTS_PER_ROUND", 3)
    rounds = list(tokenizer.rounds(texts, [None] * 7, **options))
    assert [start for start, _, _ in rounds] == [0, 3, 6]
    assert [s.input_ids.tolist() for _, part, _ in rounds for s in part] == [s.input_ids.tolist() for s in whole]
    assert sum(c.texts for _, _, c in rounds) == cut.texts > 0
    assert [(start, part) for start, part, _ in tokenizer.rounds([], [], **options)] == [(0, [])]
