"""What is done with one part: rows -> tokens (on a CPU) -> vectors (where the model is). The same code in every process.

A row that cannot be embedded is told apart from its neighbours by halving, and goes on as a failure with its reason.

Shapes: N rows, S vectors, d dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import TypeVar

import numpy as np
import pyarrow as pa

from fivefold import chunking, hub
from fivefold.checkpoint import open_checkpoint
from fivefold.config import ModelConfig, task_name
from fivefold.embedder import Embedder
from fivefold.errors import FivefoldError, InputError
from fivefold.jobs.plan import Block, Part
from fivefold.sequence import Sequence
from fivefold.tokenizer import Tokenizer
from fivefold.vectors import Array, VectorForm

Item = TypeVar("Item")
Result = TypeVar("Result")
Failure = tuple[str, str]
"""Id and reason."""


@dataclass(frozen=True, slots=True)
class Model:
    """Which model and how it is loaded, as a value that can travel: the arguments of `Embedder.load`."""

    model: str = "v3-nano"
    device: str | None = None
    dtype: str | None = None
    backend: str = "torch"
    revision: str | None = None
    local_files_only: bool = False
    accept_license: bool = False
    max_batch_tokens: int | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)

    def embedder(self) -> Embedder:
        """The whole model."""
        return Embedder.load(**asdict(self))

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer alone."""
        folder = hub.resolve(
            self.model,
            revision=self.revision,
            local_files_only=self.local_files_only,
            accept_license=self.accept_license,
            graph=self.backend == "onnx",
        )
        weights = any(folder.glob("*.safetensors"))  # which know their tasks, where config.json may not
        config = open_checkpoint(folder).config if weights else ModelConfig.from_folder(folder)
        added = replace(config, lora_adaptations=(*config.lora_adaptations, *self.adapters))
        return Tokenizer.from_folder(folder, added.with_prompts(self.prompts))


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the vectors and rows that come out, beside the model. `task` is for rows that name none."""

    task: str | None = None
    truncate_dim: int | None = None
    max_length: int | None = None
    truncate: bool = True
    normalize: bool = True
    precision: str = "float32"
    chunk_tokens: int | None = None
    part_rows: int = 2048


@dataclass(frozen=True, slots=True)
class Prepared:
    """A part as the model reads it. The spans of the sequences are the rows of the table, in order."""

    part: Part
    table: pa.Table
    sequences: list[Sequence]
    owners: list[str]
    """For each sequence the id of the input's row it comes from; neighbours share one."""
    failed: list[Failure]
    cut: int = 0
    """Texts that truncation cut."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A part with its vectors [S, d], one for each row of the table."""

    part: Part
    table: pa.Table
    vectors: Array
    tokens: int
    failed: list[Failure]
    cut: int


def prepare(block: Block, tokenizer: Tokenizer, settings: Settings) -> Prepared:
    """Tokenise a part."""
    limit = tokenizer.check_length(settings.max_length)
    tasks = [task_name(task, settings.task) for task in block.tasks]
    texts = block.table["text"].to_pylist()

    def check(rows: list[int]) -> None:
        for task in {tasks[row] for row in rows}:
            tokenizer.config.task_id(task)
            tokenizer.room(task, limit)

    def whole(rows: list[int]) -> list[_Read]:
        check(rows)
        of_rows = [texts[row] for row in rows], [tasks[row] for row in rows]
        found, cut = tokenizer.sequences(*of_rows, max_length=limit, truncate=settings.truncate)
        cuts.append(cut.texts)
        return [_Read(row, [sequence]) for row, sequence in zip(rows, found, strict=True)]

    def chunked(rows: list[int]) -> list[_Read]:
        check(rows)
        return [
            _chunks(row, texts[row], tasks[row], tokenizer=tokenizer, settings=settings, limit=limit) for row in rows
        ]

    cuts: list[int] = []
    read, failed = sifted(list(range(len(texts))), whole if settings.chunk_tokens is None else chunked)
    names = block.table["id"].to_pylist()
    return Prepared(
        block.part,
        _whole_rows(block.table, read) if settings.chunk_tokens is None else _chunk_rows(block.table, read),
        [sequence for one in read for sequence in one.sequences],
        [names[one.row] for one in read for _ in one.sequences],
        block.refused + [(names[row], str(error)) for row, error in failed],
        sum(cuts),
    )


def embed(prepared: Prepared, embedder: Embedder, form: VectorForm) -> Embedded:
    """The vectors of a part.

    Raises:
        Exception: what is no error of ours, where it came for every row: then it is not the rows.
    """
    groups = _groups(prepared)

    def vectors(some: list[list[int]]) -> list[tuple[list[int], Array]]:
        flat = embedder.embed([prepared.sequences[i] for group in some for i in group], form)
        counts = [sum(len(prepared.sequences[i].spans) for i in group) for group in some]
        return list(zip(some, np.split(flat, np.cumsum(counts)[:-1]), strict=True))

    done, failed = sifted(groups, vectors)
    lost = {i for group, _ in failed for i in group}
    kept = [i not in lost for i, sequence in enumerate(prepared.sequences) for _ in sequence.spans]
    empty = embedder.embed([], form)
    return Embedded(
        prepared.part,
        prepared.table.filter(pa.array(kept, pa.bool_())) if lost else prepared.table,
        np.concatenate([empty, *(found for _, found in done)]),
        sum(map(len, prepared.sequences)),
        prepared.failed + [(prepared.owners[group[0]], str(error)) for group, error in failed],
        prepared.cut,
    )


def sifted(
    items: list[Item], work: Callable[[list[Item]], list[Result]]
) -> tuple[list[Result], list[tuple[Item, Exception]]]:
    """Results of all items together; where that raises, of the halves, down to the items that raise alone."""
    results, failed = _halved(items, work)
    for _, error in failed if not results else []:
        if not isinstance(error, FivefoldError):
            raise error
    return results, failed


def _halved(
    items: list[Item], work: Callable[[list[Item]], list[Result]]
) -> tuple[list[Result], list[tuple[Item, Exception]]]:
    if not items:
        return [], []
    try:
        return work(items), []
    except Exception as error:
        if len(items) == 1:
            return [], [(items[0], error)]
    middle = len(items) // 2
    (left, bad_left), (right, bad_right) = _halved(items[:middle], work), _halved(items[middle:], work)
    return left + right, bad_left + bad_right


def _groups(prepared: Prepared) -> list[list[int]]:
    """Numbers of the sequences by the row they come from."""
    return [list(group) for _, group in groupby(range(len(prepared.owners)), key=prepared.owners.__getitem__)]


@dataclass(frozen=True, slots=True)
class _Read:
    """One row of the input, tokenised. `spans` are its chunks in characters, in the order of the sequences' spans."""

    row: int
    sequences: list[Sequence]
    spans: list[chunking.CharSpan] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


def _chunks(row: int, text: str, task: str | None, *, tokenizer: Tokenizer, settings: Settings, limit: int) -> _Read:
    """The windows and chunks of one document."""
    assert settings.chunk_tokens is not None
    if not text.strip():
        raise InputError("there is no text to cut into chunks; remove the row")
    spans = chunking.split(text, tokenizer, settings.chunk_tokens)
    tokens = tokenizer.tokens(text, task)
    task_id = tokenizer.config.task_id(task)
    windows = chunking.windows(tokens, chunking.token_spans(tokens, spans), task_id=task_id, max_length=limit)
    numbers = [number for window in windows for number in window.chunks]
    return _Read(row, [window.sequence for window in windows], [spans[number] for number in numbers], numbers)


def _whole_rows(table: pa.Table, read: list[_Read]) -> pa.Table:
    """The rows that could be read."""
    return table if len(read) == len(table) else table.take(pa.array([one.row for one in read], pa.int64()))


def _chunk_rows(table: pa.Table, read: list[_Read]) -> pa.Table:
    """A row for each chunk: its document's columns, with an id and text of its own, and where it is."""
    rows = pa.array([one.row for one in read for _ in one.spans], pa.int64())
    documents, texts = table["id"].to_pylist(), table["text"].to_pylist()
    places = [(one, number, span) for one in read for number, span in zip(one.numbers, one.spans, strict=True)]
    columns = {
        "id": pa.array([f"{documents[one.row]}#{number}" for one, number, _ in places], pa.string()),
        "text": pa.array([texts[one.row][start:stop] for one, _, (start, stop) in places], pa.string()),
        "document": pa.array([documents[one.row] for one, *_ in places], pa.string()),
        "start": pa.array([start for *_, (start, _) in places], pa.int64()),
        "stop": pa.array([stop for *_, (_, stop) in places], pa.int64()),
    }
    others = table.take(rows).drop_columns(["id", "text"])
    return pa.table({**columns, **{name: others[name] for name in others.column_names}})
