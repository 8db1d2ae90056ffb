from __future__ import annotations

import pytest
import torch

from fivefold.train.masking import IGNORED, WholeWords, begins_word
from tests import toy


@pytest.mark.parametrize(
    ("piece", "begins"),
    [("▁fox", True), ("es", False), ("狐", True), ("เดิน", True), ("ка", False), ("の", True), ("", True)],
)
def test_where_words_begin(piece: str, begins: bool) -> None:
    assert begins_word(piece) is begins


def words_of(text: str) -> list[list[int]]:
    """Positions of the tokens of each word of the toy tokenizer."""
    found: list[list[int]] = []
    for place, piece in enumerate(toy.rust_tokenizer().encode(text).tokens[1:-1], 1):
        if begins_word(piece):
            found.append([])
        found[-1].append(place)
    return found


def test_words_are_guessed_whole_and_the_rest_is_left_alone() -> None:
    torch.manual_seed(0)
    text, mask = toy.TEXTS[2], toy.rust_tokenizer().token_to_id("<mask>")
    ids = toy.rust_tokenizer().encode(text).ids
    collate = WholeWords(toy.rust_tokenizer(), 64, 1)
    hidden = guessed = kept = 0
    for _ in range(300):
        batch = collate([{"text": text}])
        labels, read = batch["labels"][0].tolist(), batch["input_ids"][0].tolist()
        chosen = [place for place, label in enumerate(labels) if label != IGNORED]
        assert chosen and 0 not in chosen and len(ids) - 1 not in chosen
        assert all(set(word) <= set(chosen) or not set(word) & set(chosen) for word in words_of(text))
        assert all(labels[place] == ids[place] for place in chosen)
        assert all(read[place] == ids[place] for place in range(len(ids)) if place not in chosen)
        guessed += len(chosen)
        hidden += sum(read[place] == mask for place in chosen)
        kept += sum(read[place] == ids[place] for place in chosen)
    assert 0.12 < guessed / (300 * len(ids)) < 0.25
    assert 0.75 < hidden / guessed < 0.85 and 0.07 < kept / guessed < 0.13


def test_rows_are_cut_and_padded() -> None:
    batch = WholeWords(toy.rust_tokenizer(), 8, 1)([{"text": toy.TEXTS[0]}, {"text": "fox"}])
    assert batch["input_ids"].shape == (2, 8) and batch["attention_mask"].sum(1).tolist()[0] == 8
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()
    assert batch["input_ids"][0, -1] == 2
