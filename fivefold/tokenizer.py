"""Text -> tokens: the task's prompt, ids, character offsets, truncation.

The only file that knows how characters become ids. The work is the `tokenizers` library's; this file decides what is
put before a text, which tokens are text and which are not, and what happens to a text that is too long.

Shapes: L tokens of one text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as RustTokenizer

from fivefold.config import ModelConfig
from fivefold.errors import CheckpointError, InputError, MissingFileError, TextTooLongError
from fivefold.sequence import IntArray, Sequence

TEXTS_PER_ROUND = 16384
"""Texts read at a time: bounds the memory of a long list while lengths are still sorted over many texts."""
NOT_TEXT = -1
"""Offset of a token that stands for no character of the text: special tokens and the prompt."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One whole text as tokens: `prefix` leading ones (start token, prompt) and `suffix` trailing ones are not text.

    `offsets` [L, 2] are half-open character ranges in the text the caller gave, without leading white space;
    `NOT_TEXT` for prefix and suffix.
    """

    input_ids: IntArray
    offsets: IntArray
    prefix: int
    suffix: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What truncation lost."""

    texts: int = 0
    tokens: int = 0


class Tokenizer:
    """The checkpoint's tokenizer and prompts. Holds no state between calls, so threads share one."""

    def __init__(self, rust: RustTokenizer, config: ModelConfig) -> None:
        rust.no_truncation()
        rust.no_padding()
        self.rust = rust
        self.config = config

    @classmethod
    def from_folder(cls, folder: Path, config: ModelConfig) -> Tokenizer:
        """Read `tokenizer.json`; its ids must fit the model's word table."""
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist: a model folder needs its tokenizer.json")
        try:
            rust = RustTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every malformed file
            raise CheckpointError(f"{path} is not a readable tokenizer ({error}); fetch or write it again") from None
        if rust.get_vocab_size() > config.vocab_size:
            raise CheckpointError(
                f"{path} has {rust.get_vocab_size()} pieces but the model only {config.vocab_size} rows: "
                "these two files belong to different models"
            )
        return cls(rust, config)

    @cached_property
    def _specials(self) -> tuple[int, int]:
        """How many tokens the template puts before and after a text."""
        ids = self.rust.encode("").ids
        before = len(ids) - 1 if len(ids) > 1 else len(ids)
        return before, len(ids) - before

    def sequences(
        self, texts: list[str], tasks: list[str | None], *, max_length: int, truncate: bool, offsets: bool = False
    ) -> tuple[list[Sequence], Cut]:
        """One `Sequence` for each text, pooled as a whole, and what truncation cut.

        A text over `max_length` tokens (special tokens and prompt included) keeps its first ones and the end token, or
        raises `TextTooLongError` where `truncate` is off. Offsets are computed only where asked for: they cost time.
        """
        prompted = [self.config.prompt(task) + encodable(text) for text, task in zip(texts, tasks, strict=True)]
        encode = self.rust.encode_batch if offsets else self.rust.encode_batch_fast
        encodings = encode(prompted)
        cut = self._count_cut(encodings, max_length, truncate)
        return [
            self._sequence(e, text, task, max_length, offsets)
            for e, text, task in zip(encodings, texts, tasks, strict=True)
        ], cut

    def rounds(
        self, texts: list[str], tasks: list[str | None], *, max_length: int, truncate: bool
    ) -> Iterator[tuple[int, list[Sequence], Cut]]:
        """`sequences` of many texts, `TEXTS_PER_ROUND` at a time, with the number of the first text of each round.

        While one round is worked on, the next is read on a thread of its own.
        """

        def read(start: int) -> tuple[int, list[Sequence], Cut]:
            part = slice(start, start + TEXTS_PER_ROUND)
            return start, *self.sequences(texts[part], tasks[part], max_length=max_length, truncate=truncate)

        first, *later = range(0, max(len(texts), 1), TEXTS_PER_ROUND)
        if not later:
            yield read(first)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(read, first)
            for start in later:
                ready, ahead = ahead, reader.submit(read, start)
                yield ready.result()
            yield ahead.result()

    def tokens(self, text: str, task: str | None) -> Tokens:
        """A whole text of any length, with offsets, uncut: for late chunking."""
        prompt = self.config.prompt(task)
        encoding = self.rust.encode(prompt + encodable(text))
        return self._tokens(encoding, text, len(prompt))

    def room(self, task: str | None, max_length: int) -> int:
        """How many tokens of text fit beside the special tokens and the task's prompt; at least one or an error."""
        fixed = len(self.rust.encode(self.config.prompt(task)).ids)
        if fixed >= max_length:
            raise InputError(
                f"max_length {max_length} leaves no room for text: the prompt of task {task!r} and the special tokens "
                f"take {fixed}; pass a larger max_length"
            )
        return max_length - fixed

    def check_length(self, max_length: int | None) -> int:
        """The limit to use: the model's own if None; refuses what the model cannot do."""
        limit = self.config.max_length
        if max_length is None:
            return limit
        if isinstance(max_length, bool) or not isinstance(max_length, int | np.integer) or not 1 <= max_length <= limit:
            raise InputError(f"max_length must be a whole number from 1 to the model's {limit}, got {max_length!r}")
        return int(max_length)

    def _count_cut(self, encodings: list[Encoding], max_length: int, truncate: bool) -> Cut:
        over = [(i, len(e.ids) - max_length) for i, e in enumerate(encodings) if len(e.ids) > max_length]
        if over and not truncate:
            i, extra = over[0]
            raise TextTooLongError(
                f"text {i} has {max_length + extra} tokens, the limit is {max_length}"
                + (f" ({len(over)} texts are too long)" if len(over) > 1 else "")
                + "; shorten it, pass truncate=True, or use encode_chunks for long documents"
            )
        return Cut(texts=len(over), tokens=sum(extra for _, extra in over))

    def _sequence(self, encoding: Encoding, text: str, task: str | None, max_length: int, offsets: bool) -> Sequence:
        ids = np.asarray(encoding.ids, dtype=np.int32)
        where = self._tokens(encoding, text, len(self.config.prompt(task))).offsets if offsets else None
        if len(ids) > max_length:
            tail = min(self._specials[1], max_length - 1)
            keep = np.r_[: max_length - tail, len(ids) - tail : len(ids)]
            ids, where = ids[keep], where[keep] if where is not None else None
        whole = np.array([[0, len(ids)]], dtype=np.int32)
        return Sequence(ids, self.config.task_id(task), whole, where)

    def _tokens(self, encoding: Encoding, text: str, prompt_chars: int) -> Tokens:
        ids = np.asarray(encoding.ids, dtype=np.int32)
        offsets = np.asarray(encoding.offsets, dtype=np.int32).reshape(-1, 2) - prompt_chars
        special = np.asarray(encoding.special_tokens_mask, dtype=bool)
        before, after = self._specials
        outside = np.zeros(len(ids), dtype=bool)  # template tokens and prompt; special pieces typed in a text are text
        outside[:before], outside[len(ids) - after :] = special[:before], special[len(ids) - after :]
        outside |= (offsets[:, 1] <= 0) & (np.arange(len(ids)) < len(ids) - after) & (prompt_chars > 0)
        prefix = int(np.argmin(outside)) if not outside.all() else len(ids) - after
        offsets = _without_leading_space(np.maximum(offsets, 0), text)
        offsets[:prefix] = offsets[len(ids) - after :] = NOT_TEXT
        return Tokens(ids, offsets, prefix, after)


def _without_leading_space(offsets: IntArray, text: str) -> IntArray:
    """A piece that begins a word covers the space before it; take that space off, so that offsets cut clean words."""
    starts, ends = offsets[:, 0].copy(), offsets[:, 1]
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        while start < end and text[start].isspace():
            start += 1
        starts[i] = start
    return np.stack([starts, ends], axis=1)


def encodable(text: str) -> str:
    """Lone surrogates cannot be encoded as UTF-8; each becomes U+FFFD, which keeps every character offset."""
    return _SURROGATE.sub("\ufffd", text)


def check_texts(texts: str | Iterable[str]) -> list[str]:
    """The texts as a list, each checked to be a string; the error names the first that is not."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes | dict) or not isinstance(texts, Iterable):
        raise InputError(f"texts must be a string or a list of strings, got {type(texts).__name__}")
    listed = list(texts)
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(f"text {i} must be a string, got {type(text).__name__}; convert or drop it first")
    return listed
