from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from fivefold.train.teacher import Teacher
from fivefold.train.vocabulary import MASK, SPECIALS, UNK_ID, tokenizer_of
from tests.train import toys


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizer_of(toys.teacher_file())


def test_pieces_keep_the_teachers_ids_and_scores(tokenizer: Tokenizer) -> None:
    file = toys.teacher_file()
    assert [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())] == file.pieces
    assert tokenizer.id_to_token(0) == SPECIALS[0] and tokenizer.token_to_id(MASK) == len(file.pieces) - 1


@pytest.mark.parametrize("text", ["sun", "red sun  moon", "sol rojo", "luna", " a ", "sunmoon", "Mond", "ሀ ж 漢", ""])
def test_texts_are_cut_as_the_teacher_cuts_them(tokenizer: Tokenizer, text: str) -> None:
    (ids,) = Teacher(toys.teacher_file()).features([text])["input_ids"].tolist()
    assert tokenizer.encode(text).ids == ids


def test_normaliser_is_xlm_r_s(tokenizer: Tokenizer) -> None:
    assert tokenizer.normalizer.normalize_str("ﬁve\u00a0 \tＡ\u200dB\u0007") == "five A B"


def test_template(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("sun").tokens == ["<s>", "▁sun", "</s>"]
    assert tokenizer.encode("  ").tokens == ["<s>", "</s>"]
    assert tokenizer.encode("漢").ids[2] == UNK_ID
