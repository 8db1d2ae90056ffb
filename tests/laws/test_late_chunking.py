"""Laws of late chunking."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.chunking import split, token_spans, windows
from fivefold.packing import pack
from fivefold.tokenizer import Tokenizer
from tests import toy

ATOL = 2e-5
DOCUMENT = " ".join(toy.TEXTS[:10])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The toy tokenizer."""
    return toy.tokenizer()


@pytest.mark.parametrize("task", [None, "retrieval.passage", "separation"])
@pytest.mark.parametrize("text", [toy.TEXTS[1], "  padded with space  ", "短い"])
def test_one_chunk_over_everything_is_the_plain_embedding(text: str, task: str | None) -> None:
    """The span (0, len) takes prompt, start and end token with it."""
    embedder = toy.embedder()
    one = embedder.encode_chunks(text, spans=[(0, len(text))], task=task)
    np.testing.assert_allclose(one.vectors[0], embedder.encode(text, task=task), atol=ATOL)


def test_a_chunk_is_the_mean_of_its_own_tokens() -> None:
    """Against token vectors of the whole document, averaged by hand."""
    embedder = toy.embedder(toy.config(max_position_embeddings=512))
    found = embedder.encode_chunks(DOCUMENT, chunk_tokens=20, task="separation", normalize=False)
    tokens = embedder.encode_tokens(DOCUMENT, task="separation", normalize=False)
    for number in range(1, len(found) - 1):  # the outer two also take the special tokens
        start, end = found.spans[number]
        inside = (tokens.offsets[:, 0] >= start) & (tokens.offsets[:, 0] < end)
        np.testing.assert_allclose(found.vectors[number], tokens.vectors[inside].mean(0), atol=ATOL)


@given(chunk_tokens=st.integers(1, 40), copies=st.integers(1, 4))
@settings(max_examples=40)
def test_split_covers_every_visible_character_once(tokenizer: Tokenizer, chunk_tokens: int, copies: int) -> None:
    """Chunks are in order, do not overlap, and leave out white space only."""
    document = "\n\n".join([DOCUMENT] * copies)
    spans = split(document, tokenizer, chunk_tokens)
    covered = np.zeros(len(document), dtype=int)
    for start, end in spans:
        covered[start:end] += 1
    visible = np.array([not c.isspace() for c in document])
    assert covered.max() == 1
    assert covered[visible].all()


@given(
    chunk_tokens=st.integers(1, 25), max_length=st.integers(30, 200), overlap=st.one_of(st.none(), st.integers(0, 20))
)
@settings(max_examples=60)
def test_every_chunk_is_in_exactly_one_window(
    tokenizer: Tokenizer, chunk_tokens: int, max_length: int, overlap: int | None
) -> None:
    """And that window holds exactly the chunk's own tokens, within the length limit."""
    tokens = tokenizer.tokens(DOCUMENT, None)
    spans = token_spans(tokens, split(DOCUMENT, tokenizer, chunk_tokens))
    found = windows(tokens, spans, task_id=2, max_length=max_length, overlap=overlap)
    assert sorted(c for w in found for c in w.chunks) == list(range(len(spans)))
    for window in found:
        assert len(window.sequence) <= max_length
        for (a, b), chunk in zip(window.sequence.spans, window.chunks, strict=True):
            start, end = spans[chunk]
            np.testing.assert_array_equal(window.sequence.input_ids[a:b], tokens.input_ids[start:end])


def test_the_chosen_window_gives_most_context() -> None:
    """No regular window would have left a chunk more context on its poorer side."""
    tokenizer = toy.tokenizer()
    tokens = tokenizer.tokens(" ".join([DOCUMENT] * 3), None)
    total, limit, overlap = len(tokens.input_ids), 82, 40
    spans = token_spans(tokens, [(int(o[0]), int(o[0]) + 1) for o in tokens.offsets[1:-1:7] if o[1] > o[0]])
    found = windows(tokens, spans, task_id=0, max_length=limit, overlap=overlap)
    room = limit - 2
    last = total - 2 - room
    regular = [*range(0, last, room - overlap), last]
    for window in found:
        for (a, b), chunk in zip(window.sequence.spans, window.chunks, strict=True):
            begin, end = spans[chunk] - 1
            if begin < room or end > total - room:
                continue
            mine = min(a - 1, limit - 1 - b)
            best = max(min(begin - s, s + room - end) for s in regular if s <= begin and end <= s + room)
            assert mine == best


def test_windows_of_a_long_document_pool_like_plain_sequences() -> None:
    """A window is an ordinary sequence: its vectors are the pooled hidden states of its own tokens."""
    embedder = toy.embedder(toy.config(max_position_embeddings=64))
    long = " ".join([DOCUMENT] * 2)
    found = embedder.encode_chunks(long, chunk_tokens=12, task="classification", normalize=False)
    tokens = embedder.tokenizer.tokens(long, "classification")
    spans = token_spans(tokens, [tuple(s) for s in found.spans.tolist()])
    encoder = toy.encoder(toy.config(max_position_embeddings=64))
    parts = windows(tokens, spans, task_id=3, max_length=64)
    assert len(parts) > 3
    for window in parts:
        hidden = encoder(pack([window.sequence]))
        for (a, b), chunk in zip(window.sequence.spans, window.chunks, strict=True):
            torch.testing.assert_close(
                torch.from_numpy(found.vectors[chunk]), hidden[a:b].mean(0), atol=ATOL, rtol=1e-4
            )
