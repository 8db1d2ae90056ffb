"""Inputs of a request -> sequences. Tokenising runs on threads of its own, a slice at a time, so that neither the event
loop nor the model waits for it and a book does not hold up a query.

Knows tokens and limits; knows neither the model nor the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import ParamSpec, TypeVar

import numpy as np

from fivefold import chunking
from fivefold.errors import InputError, TextTooLongError
from fivefold.sequence import IntArray, Sequence
from fivefold.serve.failures import RequestError, TooLargeError
from fivefold.serve.limits import Limits
from fivefold.tokenizer import Tokenizer, Tokens

P = ParamSpec("P")
R = TypeVar("R")

CHARS_PER_TOKEN = 250
"""No text has so many characters a token: a longer one is over the limit without counting."""
DOCUMENT_CHARS_PER_TOKEN = 16
"""The same for a document of any length, whose limit is the request's."""
SLICE_CHARS, SLICE_TEXTS = 1 << 16, 512
"""What is tokenised in one go: some tens of milliseconds."""
SLICE_CHUNKS = 32
"""Chunks that are cut in one go, for the same reason."""
UNCOUNTED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Input:
    """One text, or the ids of one, with its task."""

    content: str | list[int]
    task: str | None = None

    def __len__(self) -> int:
        """Characters or ids."""
        return len(self.content)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the model reads, and the tokens of the raw texts: special tokens counted, prompts not, as Jina bills.

    `order` is where each row of the model belongs in the answer; None where they come in order.
    """

    sequences: list[Sequence]
    tokens: int
    order: list[int] | None = None


class Intake:
    """The tokenizer, the limits, and the threads they work on."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits, *, threads: int) -> None:
        self.tokenizer = tokenizer
        self.limits = limits
        self._pool = ThreadPoolExecutor(threads, "fivefold-tokenize")
        self._long = ThreadPoolExecutor(1, "fivefold-tokenize-long")
        tasks: list[str | None] = [None, *tokenizer.config.lora_adaptations]
        for task in tasks:
            tokenizer.room(task, limits.max_input_length)
        bare = tokenizer.tokens("a", None)
        self.template = bare.prefix, bare.suffix  # special tokens before and after a text
        self.prompt_tokens = {task: self._prompt_tokens(task) for task in tasks}

    def _prompt_tokens(self, task: str | None) -> int:
        """Measured on a text, because the space that ends a prompt may become part of the first word."""
        return len(self.tokenizer.tokens("a", task).input_ids) - len(self.tokenizer.tokens("a", None).input_ids)

    async def offload(self, size: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run something on these threads; what handles more than a slice of characters has a thread of its own."""

        def guarded() -> R:
            try:
                return work(*args, **kwargs)
            except Exception:
                raise
            except BaseException as error:  # a panic of a library in Rust: not to end the server
                raise RuntimeError(f"a library failed: {type(error).__name__}") from error

        pool = self._long if size > SLICE_CHARS else self._pool
        return await asyncio.get_running_loop().run_in_executor(pool, guarded)

    def close(self) -> None:
        """End the threads when their work is done."""
        self._pool.shutdown(wait=False)
        self._long.shutdown(wait=False)

    async def prepare(self, inputs: list[Input], *, truncate: bool, from_left: bool = False) -> Prepared:
        """One sequence for each input, pooled as a whole.

        Raises:
            TextTooLongError: an input is over `max_input_length`, and `truncate` is off; the message names it.
            TooLargeError: too many inputs, or too many tokens in all.
            InputError: ids that are no tokens of this model.
        """
        self._check_count(len(inputs))
        sequences: list[Sequence] = []
        total = 0
        for start, stop in _slices(inputs):
            found = await self.offload(
                _size(inputs[start:stop]), self._tokenized, inputs[start:stop], start, truncate, from_left
            )
            sequences += found
            total += sum(map(len, found))
            self._check_total(total)
        prompts = sum(self.prompt_tokens[i.task] for i in inputs)
        return Prepared(sequences, max(total - prompts, 0))

    async def prepare_late(self, inputs: list[Input], *, task: str | None, windows: bool) -> Prepared:
        """Late chunking: the inputs are one document, each a chunk of it; one row for each, in order.

        Past the model's length the document is read in overlapping windows if `windows`, else refused. A blank input is
        no part of the document: it is read by itself, as without late chunking.
        """
        self._check_count(len(inputs))
        if not inputs:
            return Prepared([], 0)
        return await self.offload(_size(inputs), self._late, inputs, task, windows)

    def text_of(self, content: str | list[int], number: int) -> str:
        """The text of an input; ids are decoded with the model's own vocabulary."""
        if isinstance(content, str):
            return content
        size = self.tokenizer.rust.get_vocab_size()
        for token in content:
            if not 0 <= token < size:
                raise RequestError(
                    f"input {number} has the token id {token}, and this model has ids from 0 to {size - 1}: ids of "
                    "another tokenizer (tiktoken) mean other words here; send text",
                    "input",
                )
        text: str = self.tokenizer.rust.decode(content, skip_special_tokens=True)
        return text

    def _check_count(self, count: int) -> None:
        if count > self.limits.max_client_batch_size:
            raise TooLargeError(
                f"{count} inputs in one request, the limit is {self.limits.max_client_batch_size}; send them in parts",
                "input",
            )

    def _check_total(self, tokens: int) -> None:
        if tokens > self.limits.max_request_tokens:
            raise TooLargeError(
                f"more than {self.limits.max_request_tokens} tokens in one request; send it in parts", "input"
            )

    def _check_document(self, text: str) -> None:
        """Far over the limit of tokens: not worth the memory of counting them."""
        if len(text) > DOCUMENT_CHARS_PER_TOKEN * self.limits.max_request_tokens:
            raise TooLargeError(f"a document of {len(text)} characters is too long; send it in parts", "input")

    def _tokenized(self, inputs: list[Input], first: int, truncate: bool, from_left: bool) -> list[Sequence]:
        """A slice of a request's inputs; `first` is the number of its first input, for errors."""
        limit = self.limits.max_input_length
        texts = [self._bounded(i, n, truncate, from_left) for n, i in enumerate(inputs, first)]
        tasks = [i.task for i in inputs]
        found, _ = self.tokenizer.sequences(texts, tasks, max_length=UNCOUNTED, truncate=False)
        for n, sequence in enumerate(found):
            if len(sequence) > limit:
                if not truncate:
                    raise TextTooLongError(
                        f"input {first + n} has {len(sequence)} tokens, the limit is {limit}; shorten it, or ask for "
                        '"truncate": true'
                    )
                found[n] = self._cut(texts[n], tasks[n], from_left)
        return found

    def _bounded(self, item: Input, number: int, truncate: bool, from_left: bool) -> str:
        """The text, without what is over the limit for certain: tokenising is memory too."""
        most = CHARS_PER_TOKEN * self.limits.max_input_length
        if len(item) > most and not truncate:
            raise TextTooLongError(
                f"input {number} has {len(item)} characters, more than {self.limits.max_input_length} tokens can hold; "
                'shorten it, or ask for "truncate": true'
            )
        text = self.text_of(item.content, number)
        return text[-most:] if from_left else text[:most]

    def _cut(self, text: str, task: str | None, from_left: bool) -> Sequence:
        """A text that is too long, without its end or its beginning."""
        limit = self.limits.max_input_length
        if not from_left:
            return self.tokenizer.sequences([text], [task], max_length=limit, truncate=True)[0][0]
        tokens = self.tokenizer.tokens(text, task)
        ids = np.concatenate([tokens.input_ids[: tokens.prefix], tokens.input_ids[tokens.prefix - limit :]])
        return Sequence(ids, self.tokenizer.config.task_id(task), np.array([[0, limit]], dtype=np.int32))

    def _late(self, inputs: list[Input], task: str | None, windows: bool) -> Prepared:
        texts = [self.text_of(i.content, n) for n, i in enumerate(inputs)]
        visible = [n for n, text in enumerate(texts) if text.strip()]
        blank = [n for n, text in enumerate(texts) if not text.strip()]
        document, spans = joined([texts[n] for n in visible])
        self._check_document(document)
        tokens = self.tokenizer.tokens(document, task)
        self._check_total(len(tokens.input_ids))
        limit = self.limits.max_input_length
        if len(tokens.input_ids) > limit and not windows:
            raise TextTooLongError(
                f"with late_chunking all inputs are read as one, and together they have {len(tokens.input_ids)} tokens; "
                f'the limit is {limit}. Send fewer, or ask for "late_chunking_windows": true to read overlapping windows'
            )
        chunks = chunking.token_spans(tokens, spans)
        parts = chunking.windows(tokens, chunks, task_id=self.tokenizer.config.task_id(task), max_length=limit)
        alone, _ = self.tokenizer.sequences([""] * len(blank), [task] * len(blank), max_length=limit, truncate=False)
        order = [visible[chunk] for window in parts for chunk in window.chunks] + blank
        prompt = self.prompt_tokens[task]
        return Prepared([*(w.sequence for w in parts), *alone], max(len(tokens.input_ids) - prompt, 0), order)

    def every_token(self, sequences: list[Sequence]) -> list[Sequence]:
        """The same sequences with a row for each token instead of one for all."""
        return [Sequence(s.input_ids, s.task_id, _singles(len(s))) for s in sequences]

    async def tokens(self, inputs: list[Input]) -> list[tuple[str, Tokens]]:
        """Each text with its tokens and their offsets, uncut up to `CHARS_PER_TOKEN` times the model's length."""
        self._check_count(len(inputs))
        found: list[tuple[str, Tokens]] = []
        total = 0
        for start, stop in _slices(inputs):
            part = await self.offload(_size(inputs[start:stop]), self._with_offsets, inputs[start:stop], start)
            total += sum(len(tokens.input_ids) for _, tokens in part)
            self._check_total(total)
            found += part
        return found

    def _with_offsets(self, inputs: list[Input], first: int) -> list[tuple[str, Tokens]]:
        texts = [self._bounded(i, n, False, False) for n, i in enumerate(inputs, first)]
        return [(text, self.tokenizer.tokens(text, i.task)) for text, i in zip(texts, inputs, strict=True)]

    async def split(self, text: str, chunk_tokens: int) -> list[chunking.CharSpan]:
        """Character spans of chunks of at most so many tokens."""
        self._check_document(text)
        if chunk_tokens > self.limits.max_input_length:
            raise InputError(f"chunk_tokens may be at most {self.limits.max_input_length}, got {chunk_tokens}")
        pieces, found = chunking.pieces(text, self.tokenizer, chunk_tokens), []
        while some := await self.offload(0, list, islice(pieces, SLICE_CHUNKS)):
            found += some
        return found


def joined(chunks: list[str]) -> tuple[str, list[chunking.CharSpan]]:
    """Chunks as one document, with their spans in it: a space goes between two where neither has white space there."""
    document: list[str] = []
    spans: list[chunking.CharSpan] = []
    position = 0
    for chunk in chunks:
        if document and not (document[-1][-1:].isspace() or chunk[:1].isspace()):
            document.append(" ")
            position += 1
        spans.append((position, position + len(chunk)))
        document.append(chunk)
        position += len(chunk)
    return "".join(document), spans


def _size(inputs: list[Input]) -> int:
    """Characters, or ids, of inputs together."""
    return sum(map(len, inputs))


def _slices(inputs: list[Input]) -> Iterator[tuple[int, int]]:
    """Runs of inputs of at most `SLICE_CHARS` characters and `SLICE_TEXTS` texts; a longer text is one by itself."""
    start = size = 0
    for number, item in enumerate(inputs):
        if number > start and (size + len(item) > SLICE_CHARS or number - start == SLICE_TEXTS):
            yield start, number
            start, size = number, 0
        size += len(item)
    if inputs:
        yield start, len(inputs)


def _singles(length: int) -> IntArray:
    """One span for each token: [L, 2]."""
    starts = np.arange(length, dtype=np.int32)
    return np.stack([starts, starts + 1], axis=1)
