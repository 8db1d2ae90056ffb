"""chunking.py: where chunks are found, how they are cut, and what is refused."""

from __future__ import annotations

import pytest
from semantic_text_splitter import TextSplitter

from fivefold.chunking import check_spans, locate, pieces, split, token_spans, windows
from fivefold.errors import ChunkError, InputError
from fivefold.tokenizer import Tokenizer
from tests import toy


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The toy tokenizer."""
    return toy.tokenizer()


def test_chunks_are_found_in_order() -> None:
    """A repeated sentence is its next occurrence, not its first."""
    document = "Yes. No. Yes. Maybe."
    assert locate(document, ["Yes.", "No.", "Yes.", "Maybe."]) == [(0, 4), (5, 8), (9, 13), (14, 20)]


def test_overlapping_chunks_are_found() -> None:
    """A chunk may begin inside the one before it."""
    assert locate("one two three four", ["one two three", "two three four"]) == [(0, 13), (4, 18)]


def test_a_chunk_that_is_not_there() -> None:
    """Named by number and beginning."""
    with pytest.raises(ChunkError, match=r"chunk 1 \('blue'"):
        locate("red green", ["red", "blue"])
    with pytest.raises(InputError, match="chunk 0 must be a string"):
        locate("red green", [3])  # type: ignore[list-item]


@pytest.mark.parametrize("span", [(0, 0), (3, 2), (-1, 2), (0, 99)])
def test_spans_outside_the_document(span: tuple[int, int]) -> None:
    """Empty, reversed and out of range."""
    with pytest.raises(ChunkError, match="not inside the document"):
        check_spans("0123456789", [span])
    with pytest.raises(InputError, match="pair of character positions"):
        check_spans("0123456789", ["ab"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rains. We stay home.", ["It rains.", "We stay home."]),
        ("今天天气很好。我们去公园散步。", ["今天天气很好。", "我们去公园散步。"]),
        ("आज बारिश है। हम घर पर हैं।", ["आज बारिश है।", "हम घर पर हैं।"]),
        ("هل تمطر؟ نبقى في البيت.", ["هل تمطر؟", "نبقى في البيت."]),
    ],
)
def test_sentences_of_any_script(tokenizer: Tokenizer, text: str, sentences: list[str]) -> None:
    """With room for one sentence but not for both, the cut falls between them."""
    longest = max(len(tokenizer.rust.encode(s, add_special_tokens=False).ids) for s in sentences)
    assert [text[a:b] for a, b in split(text, tokenizer, longest + 1)] == sentences


@pytest.mark.parametrize("size", [0, -3, 1.5, "10", True])
def test_chunk_sizes_that_make_no_sense(tokenizer: Tokenizer, size: object) -> None:
    """Only whole numbers from 1."""
    with pytest.raises(InputError, match="chunk_tokens"):
        split("text", tokenizer, size)  # type: ignore[arg-type]


def test_neighbouring_chunks_share_no_token(tokenizer: Tokenizer) -> None:
    """Spans that partition the characters partition the tokens, special tokens included."""
    text = toy.TEXTS[1]
    tokens = tokenizer.tokens(text, "retrieval.passage")
    starts = tokens.offsets[:, 0]
    cuts = [0, *starts[starts > 0][3::6].tolist(), len(text)]
    spans = token_spans(tokens, list(zip(cuts[:-1], cuts[1:], strict=True)))
    assert spans[0, 0] == 0
    assert spans[-1, 1] == len(tokens.input_ids)
    assert (spans[1:, 0] == spans[:-1, 1]).all()


def test_a_chunk_inside_one_token_takes_that_token(tokenizer: Tokenizer) -> None:
    """A character in the middle of a piece still has a vector."""
    tokens = tokenizer.tokens(toy.TEXTS[0], None)
    number = next(i for i, (a, b) in enumerate(tokens.offsets) if b - a >= 2)
    middle = int(tokens.offsets[number, 0]) + 1
    [span] = token_spans(tokens, [(middle, middle + 1)])
    assert span.tolist() == [number, number + 1]


def test_white_space_holds_no_token(tokenizer: Tokenizer) -> None:
    """Said, not skipped."""
    with pytest.raises(ChunkError, match="holds no token"):
        token_spans(tokenizer.tokens("a    b", None), [(2, 4)])


def test_a_chunk_longer_than_the_model(tokenizer: Tokenizer) -> None:
    """Cannot be read at once, so it is refused."""
    text = " ".join(toy.TEXTS)
    tokens = tokenizer.tokens(text, None)
    spans = token_spans(tokens, [(0, len(text))])
    with pytest.raises(ChunkError, match="more than the 48 the model can read"):
        windows(tokens, spans, task_id=-1, max_length=50)
    with pytest.raises(InputError, match="overlap must be"):
        windows(tokens, spans, task_id=-1, max_length=50, overlap=48)


def test_half_of_a_surrogate_pair_is_a_character_like_any_other() -> None:
    text = "Der Fuchs springt. El zorro salta.\ud83d"
    spans = split(text, toy.tokenizer(), 12)
    assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text.split())


@pytest.mark.parametrize(
    ("unit", "chunk_tokens"),
    [
        ("The fox jumps. It rains.\n\n", 12),
        ("The fox jumps over the river ", 12),
        ("a", 40),
        ("字", 300),
        (" ", 12),
        ("\u0301", 7),
    ],
)
def test_a_long_text_is_cut_as_if_seen_whole(tokenizer: Tokenizer, unit: str, chunk_tokens: int) -> None:
    """Texts are looked at part by part; where a part ends leaves no trace."""
    text = unit * (30_000 // len(unit))
    whole = TextSplitter.from_huggingface_tokenizer(tokenizer.rust, chunk_tokens).chunk_indices(text)
    assert split(text, tokenizer, chunk_tokens) == [(start, start + len(piece)) for start, piece in whole]


def test_the_first_chunks_of_a_book_come_before_the_last(tokenizer: Tokenizer) -> None:
    """Only what is asked for is computed: a view's chunks, not those of 50 MB."""
    seen: list[int] = []

    class Counted(str):
        def __getitem__(self, view: slice) -> str:
            seen.append(len(part := str.__getitem__(self, view)))
            return part

    assert next(pieces(Counted("a" * 1_000_000), tokenizer, 8))[0] == 0
    assert sum(seen) < 10_000
