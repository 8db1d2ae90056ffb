"""`fivefold embed`: rows in, vectors out, a block at a time."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from fivefold.commands import sinks
from fivefold.commands.loading import load_embedder, vector_arguments
from fivefold.config import task_name
from fivefold.embedder import Embedder
from fivefold.errors import FivefoldError, InputError, TruncationWarning
from fivefold.jobs import records
from fivefold.jobs.records import Columns, Record, Row
from fivefold.vectors import Array

BLOCK_ROWS = 2048
"""Rows in memory at a time: enough to sort by length, few enough that any file fits."""
CHUNK_COLUMNS = ("document", "start", "stop")


@dataclass(frozen=True, slots=True)
class Job:
    """What to do with each block."""

    embedder: Embedder
    truncate_dim: int | None
    max_length: int | None
    truncate: bool
    normalize: bool
    precision: str
    chunk_tokens: int | None
    text_column: str


def run(args: Namespace) -> None:
    """Read, embed, write."""
    kind = sinks.kind_of(args.output, args.output_format)
    if args.chunk_tokens is not None and kind == "npy":
        raise InputError("npy holds vectors only, and chunks need their document and span; write .jsonl or .parquet")
    columns = Columns(args.field, args.task_field)
    rows = _checked(records.rows(args.inputs, args.input_format, columns), args)
    first = list(islice(rows, BLOCK_ROWS))
    if not first:
        raise InputError(f"there is no text in {', '.join(args.inputs)}")
    schema = records.parquet_schema(args.inputs, args.input_format)
    job = _job(args)
    _check_tasks(first, job)
    with (
        sinks.opened(args.output, kind, args.embedding_field, schema if job.chunk_tokens is None else None) as sink,
        tqdm(disable=None, unit=" texts", file=sys.stderr) as bar,
    ):
        done = 0
        for block in _blocks(first, rows):
            sink.write(*_embedded(block, job, done))
            done += len(block)
            bar.update(len(block))


def _job(args: Namespace) -> Job:
    return Job(
        embedder=load_embedder(args),
        **vector_arguments(args),
        text_column=args.field,
    )


def _checked(rows: Iterator[Row], args: Namespace) -> Iterator[Row]:
    """Rows with their task filled in; refuses rows that already have a column we add."""
    default = task_name(args.task, "retrieval.passage" if args.chunk_tokens is not None else None)
    added = [args.embedding_field, *(CHUNK_COLUMNS if args.chunk_tokens is not None else ())]
    for row in rows:
        for name in added:
            if name in row.record:
                raise InputError(f"{row.where}: it already has {name!r}; rename it, or pass --embedding-field")
        yield replace(row, task=task_name(row.task, default))


def _blocks(first: list[Row], rows: Iterator[Row]) -> Iterator[list[Row]]:
    block = first
    while block:
        yield block
        block = list(islice(rows, BLOCK_ROWS))


def _check_tasks(rows: list[Row], job: Job) -> None:
    """Name the first row whose task the model does not have."""
    for row in rows:
        try:
            job.embedder.config.task_id(row.task)
        except FivefoldError as error:
            raise InputError(f"{row.where}: {error}") from None


def _embedded(block: list[Row], job: Job, done: int) -> tuple[list[Record], Array]:
    """The records to write and their vectors; a failure is told with the row that caused it."""
    _check_tasks(block, job)
    work = _texts if job.chunk_tokens is None else _chunks
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TruncationWarning)
        try:
            result = work(block, job, done)
        except FivefoldError as error:
            raise _naming_the_row(error, block, job) from error
    for warning in caught:
        warnings.warn(f"{block[0].where} to {block[-1].where}: {warning.message}", warning.category, stacklevel=2)
    return result


def _texts(block: list[Row], job: Job, done: int) -> tuple[list[Record], Array]:
    vectors = job.embedder.encode(
        [row.text for row in block],
        task=[row.task for row in block],
        truncate_dim=job.truncate_dim,
        max_length=job.max_length,
        truncate=job.truncate,
        normalize=job.normalize,
        precision=job.precision,
    )
    return [row.record for row in block], vectors


def _chunks(block: list[Row], job: Job, done: int) -> tuple[list[Record], Array]:
    """Late chunks of each row: its columns, with the text replaced by the chunk's, document number and span."""
    out: list[Record] = []
    vectors: list[Array] = []
    for number, row in enumerate(block, done):
        if not row.text.strip():
            raise InputError("there is no text to cut into chunks; remove the row")
        found = job.embedder.encode_chunks(
            row.text,
            chunk_tokens=job.chunk_tokens,
            task=row.task,
            truncate_dim=job.truncate_dim,
            max_length=job.max_length,
            normalize=job.normalize,
            precision=job.precision,
        )
        text = "text" if "text" in row.record and job.text_column not in row.record else job.text_column
        for (start, stop), chunk in zip(found.spans.tolist(), found.texts, strict=True):
            out.append({**row.record, text: chunk, "document": number, "start": start, "stop": stop})
        vectors.append(found.vectors)
    return out, np.concatenate(vectors)


def _naming_the_row(error: FivefoldError, block: list[Row], job: Job) -> FivefoldError:
    """The same error with file and row: the first row of the block that fails on its own."""
    work: Any = _texts if job.chunk_tokens is None else _chunks
    for row in block:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncationWarning)
                work([row], job, 0)
        except FivefoldError as alone:
            return InputError(f"{row.where}: {alone}")
    return error
