"""Late chunking: a document is read once in full context, and each chunk is pooled from its own tokens.

Günther et al. 2024, arXiv 2409.04701: tokens before the text (start token, prompt) belong to the chunk that holds the
text's first token, those after it (end token) to the chunk that holds its last. A document longer than the model
becomes overlapping windows, and each chunk is pooled in exactly one of them: the one that leaves it most context on its
poorer side.

                 |<------------- window 0 ------------->|
    document     [..........|.....c.....|...............|......d......|.............]
                                          |<------------- window 1 ------------->|

Knows nothing of tensors: the result is `Sequence`s with spans, the same thing a plain embedding is made of.

Shapes: L tokens, C chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

import numpy as np
from semantic_text_splitter import TextSplitter

from fivefold.errors import ChunkError, InputError
from fivefold.sequence import IntArray, Sequence
from fivefold.tokenizer import Tokenizer, Tokens, encodable

CharSpan = tuple[int, int]
MAX_DEFAULT_OVERLAP = 512
"""Tokens that neighbouring windows share where the caller does not say, but never over a quarter of a window."""

_VIEW_CHARS, _VIEW_CHARS_PER_TOKEN = 4096, 32
"""What `pieces` looks at in one go, several chunks: in the whole of a text without a space the splitter's time is quadratic."""
_NEVER = np.int32(2**31 - 1)  # start of trailing white space: after every character


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of a long document as a `Sequence`, and which chunks its spans are, in order."""

    sequence: Sequence
    chunks: tuple[int, ...]


def split(text: str, tokenizer: Tokenizer, chunk_tokens: int) -> list[CharSpan]:
    """Character spans of chunks of at most `chunk_tokens` tokens that break at paragraphs, sentences or words, in
    that order.

    Sentence and word boundaries are Unicode's (UAX 29), so it works in every script. White space around a chunk is left
    out; every other character is in exactly one chunk.
    """
    return list(pieces(text, tokenizer, chunk_tokens))


def pieces(text: str, tokenizer: Tokenizer, chunk_tokens: int) -> Iterator[CharSpan]:
    """`split`, one span after the other; some are found at a time, whatever the length of the text."""
    if isinstance(chunk_tokens, bool) or not isinstance(chunk_tokens, int) or chunk_tokens < 1:
        raise InputError(f"chunk_tokens must be a whole number of at least 1, got {chunk_tokens!r}")

    def count(part: str) -> int:
        return len(tokenizer.rust.encode(part, add_special_tokens=False))

    splitter = TextSplitter.from_callback(count, chunk_tokens)  # given the tokenizer itself it would copy it each time
    text, start = encodable(text), 0
    reach = view = max(_VIEW_CHARS, _VIEW_CHARS_PER_TOKEN * chunk_tokens)
    while start < len(text):
        found = splitter.chunk_indices(text[start : start + reach])
        ended = start + reach >= len(text)
        if len(found) < 2 and not ended:
            reach *= 2
            continue
        for at, piece in found if ended else found[:-1]:  # the last one may go on behind the view
            yield start + at, start + at + len(piece)
        start, reach = (len(text) if ended else start + found[-1][0]), view


def locate(document: str, chunks: Iterable[str]) -> list[CharSpan]:
    """Character spans of chunk texts, which must occur in the document in this order (they may overlap)."""
    spans: list[CharSpan] = []
    start = end = 0
    for number, chunk in enumerate(chunks):
        if not isinstance(chunk, str):
            raise InputError(f"chunk {number} must be a string, got {type(chunk).__name__}")
        found = document.find(chunk, end)
        if found < 0:
            found = document.find(chunk, start)  # overlaps the chunk before it
        if found < 0:
            raise ChunkError(
                f"chunk {number} ({chunk[:40]!r}...) does not occur in the document after the chunk before it; "
                "pass the chunks in order and unchanged, or give character spans"
            )
        start, end = found, found + len(chunk)
        spans.append((start, end))
    return spans


def check_spans(document: str, spans: Iterable[CharSpan]) -> list[CharSpan]:
    """Character spans as a list of whole-number pairs, each inside the document."""
    checked: list[CharSpan] = []
    for number, span in enumerate(spans):
        try:
            start, end = (int(x) for x in span)
        except (TypeError, ValueError):
            raise InputError(f"span {number} must be a pair of character positions, got {span!r}") from None
        if not 0 <= start < end <= len(document):
            raise ChunkError(f"span {number} ({start}, {end}) is not inside the document of {len(document)} characters")
        checked.append((start, end))
    return checked


def token_spans(tokens: Tokens, spans: list[CharSpan]) -> IntArray:
    """Character spans -> half-open token spans [C, 2] in the whole document.

    A token belongs to the chunk that holds its first character; a chunk that begins inside a token takes that token.
    The chunk with the first text token also takes the prefix, the one with the last the suffix.
    """
    total = len(tokens.input_ids)
    starts, ends = _visible_starts(tokens), tokens.offsets[tokens.prefix : total - tokens.suffix, 1]
    out = np.empty((len(spans), 2), dtype=np.int32)
    for number, (begin, end) in enumerate(spans):
        a, b = np.searchsorted(starts, begin), np.searchsorted(starts, end)
        if a == b:  # no token starts here: take those that reach into it
            a = np.searchsorted(ends, begin, side="right")
        if a >= b:
            raise ChunkError(
                f"chunk {number} (characters {begin} to {end}) holds no token: only white space or control marks"
            )
        is_last = b == len(starts) or starts[b] == _NEVER
        out[number] = tokens.prefix + a if a else 0, total if is_last else tokens.prefix + b
    return out


def _visible_starts(tokens: Tokens) -> IntArray:
    """First visible character of each text token; a token of white space goes with the token after it."""
    inside = tokens.offsets[tokens.prefix : len(tokens.input_ids) - tokens.suffix]
    starts = np.where(inside[:, 0] < inside[:, 1], inside[:, 0], _NEVER)
    return np.minimum.accumulate(starts[::-1])[::-1]


def windows(
    tokens: Tokens, spans: IntArray, *, task_id: int, max_length: int, overlap: int | None = None
) -> list[Window]:
    """Sequences of at most `max_length` tokens that together hold every span [C, 2] exactly once.

    Each window repeats the document's prefix and suffix tokens around its stretch of text. Windows share `overlap`
    tokens; a chunk that fits into none of them gets one centred on itself.
    """
    if not len(spans):
        return []
    if len(tokens.input_ids) <= max_length:
        whole = Sequence(tokens.input_ids, task_id, spans, tokens.offsets)
        return [Window(whole, tuple(range(len(spans))))]
    room = max_length - tokens.prefix - tokens.suffix
    if overlap is None:
        overlap = min(MAX_DEFAULT_OVERLAP, room // 4)
    if not 0 <= overlap < room:
        raise InputError(f"overlap must be from 0 to {room - 1} tokens at this max_length, got {overlap}")
    last = len(tokens.input_ids) - max_length
    regular: list[int] = [*range(0, last, room - overlap), last]
    chosen: dict[int, list[int]] = {}
    for number, (a, b) in enumerate(_text_spans(tokens, spans)):
        chosen.setdefault(_window_start(a, b, regular, room, number), []).append(number)
    return [_window(tokens, spans, start, room, tuple(chunks), task_id) for start, chunks in sorted(chosen.items())]


def _text_spans(tokens: Tokens, spans: IntArray) -> list[tuple[int, int]]:
    """Token spans counted in text tokens, without prefix and suffix."""
    last = len(tokens.input_ids) - tokens.suffix
    inside = np.clip(spans, tokens.prefix, last) - tokens.prefix
    return [(int(a), int(b)) for a, b in inside]


def _window_start(a: int, b: int, regular: list[int], room: int, number: int) -> int:
    """Where the window for text tokens [a, b) begins: the regular one with most context, else one centred on the chunk."""
    if b - a > room:
        raise ChunkError(
            f"chunk {number} has {b - a} tokens, more than the {room} the model can read at once; split it"
        )
    last = regular[-1]
    fitting = [start for start in regular if start <= a and b <= start + room]
    if not fitting:
        return min(max((a + b - room) // 2, 0), last)
    best: int = max(fitting, key=lambda start: _context(a, b, start, last, room))
    return best


def _context(a: int, b: int, start: int, last: int, room: int) -> tuple[float, float]:
    """Context of a chunk in a window: the poorer side first. At an end of the document nothing is missing."""
    left = inf if start == 0 else a - start
    right = inf if start == last else start + room - b
    return min(left, right), max(left, right)


def _window(tokens: Tokens, spans: IntArray, start: int, room: int, chunks: tuple[int, ...], task_id: int) -> Window:
    """The window over text tokens [start, start + room), with prefix and suffix around it and spans moved into it."""
    total, prefix, suffix = len(tokens.input_ids), tokens.prefix, tokens.suffix
    take = np.r_[0:prefix, prefix + start : prefix + start + room, total - suffix : total]
    moved = spans[list(chunks)].copy()
    moved[:, 0] = np.where(moved[:, 0] == 0, 0, moved[:, 0] - start)
    moved[:, 1] = np.where(moved[:, 1] == total, len(take), moved[:, 1] - start)
    return Window(Sequence(tokens.input_ids[take], task_id, moved, tokens.offsets[take]), chunks)
