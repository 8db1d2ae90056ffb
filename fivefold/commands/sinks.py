"""Rows and their vectors -> npy, JSONL or Parquet, block by block, so the output may be larger than memory.

A file appears under its name only when it is complete; a run that fails leaves none behind.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fivefold.errors import InputError
from fivefold.jobs.records import Record
from fivefold.vectors import Array

STDOUT = "-"


class Sink(Protocol):
    """Takes blocks of records with their vectors [n, d]; `close` finishes the file."""

    def write(self, records: list[Record], vectors: Array) -> None:
        """Add one block; vector i belongs to record i."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


@dataclass
class NpySink:
    """A plain array of the vectors. On a file it streams: the header's row count is rewritten at the end."""

    stream: BinaryIO
    column: str
    schema: pa.Schema | None = None
    count: int = 0
    blocks: list[Array] = field(default_factory=list)

    def write(self, records: list[Record], vectors: Array) -> None:
        """Append rows, or keep them where the output cannot be rewound."""
        if not self.blocks:
            self.blocks.append(vectors[:0])
            self._header()
        self.count += len(vectors)
        if self.stream.seekable():
            self.stream.write(np.ascontiguousarray(vectors).tobytes())
        else:
            self.blocks.append(vectors)

    def close(self) -> None:
        """Put the true number of rows in the header."""
        if not self.blocks:
            return
        if self.stream.seekable():
            self.stream.seek(0)
            self._header()
        else:
            np.save(self.stream, np.concatenate(self.blocks))

    def _header(self) -> None:
        if self.stream.seekable():
            kind = self.blocks[0]
            shape = {"descr": kind.dtype.str, "fortran_order": False, "shape": (self.count, kind.shape[1])}
            np.lib.format.write_array_header_1_0(self.stream, shape)  # numpy pads it so that the row count can grow


@dataclass
class JsonlSink:
    """One JSON object a row: its columns and the vector as a list."""

    stream: BinaryIO
    column: str
    schema: pa.Schema | None = None

    def write(self, records: list[Record], vectors: Array) -> None:
        """Write rows; 9 digits of a float give the same float32 back."""
        for record, numbers in zip(records, _numbers(vectors), strict=True):
            line = _json({**record, self.column: numbers})
            # half a surrogate pair, which UTF-8 has no bytes for, as JSON escapes it
            self.stream.write(line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self) -> None:
        """Nothing to finish."""


@dataclass
class ParquetSink:
    """The input's columns and a column of fixed-size lists; one row group a block."""

    stream: BinaryIO
    column: str
    schema: pa.Schema | None = None
    settled: bool = False
    writer: pq.ParquetWriter | None = None

    def write(self, records: list[Record], vectors: Array) -> None:
        """Write one row group; the first block decides the columns' types unless the input had some."""
        table = _table(records, self.schema, settled=self.settled)
        self.settled = self.settled or self.schema is None
        self.schema = table.schema
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        table = table.append_column(self.column, pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
        if self.writer is None:
            self.writer = _writer(self.stream, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        if self.writer is not None:
            self.writer.close()


SINKS: dict[str, Callable[[BinaryIO, str, pa.Schema | None], Sink]] = {
    "npy": NpySink,
    "jsonl": JsonlSink,
    "parquet": ParquetSink,
}
SUFFIXES = {".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def kind_of(path: str, wanted: str | None) -> str:
    """Format of an output: as asked, or by its suffix; standard output is JSONL."""
    if wanted is not None or path == STDOUT:
        return wanted or "jsonl"
    kind = SUFFIXES.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"cannot tell the format of {path}; name it .npy, .jsonl or .parquet, or pass --output-format")
    return kind


@contextmanager
def opened(path: str, kind: str, column: str, schema: pa.Schema | None) -> Iterator[Sink]:
    """A sink on a file, which gets its name when all went well, or on standard output."""
    if path == STDOUT:
        if kind != "jsonl" and sys.stdout.isatty():
            raise InputError(f"{kind} is binary and would garble your terminal; pass --output FILE or redirect it")
        sink = SINKS[kind](sys.stdout.buffer, column, schema)
        yield sink
        sink.close()
        return
    part = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as stream:
            sink = SINKS[kind](stream, column, schema)
            try:
                yield sink
            finally:
                sink.close()
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _numbers(vectors: Array) -> list[list[Any]]:
    if vectors.dtype != np.float32:
        return vectors.tolist()  # type: ignore[no-any-return]
    return [[float(f"{number:.9g}") for number in row] for row in vectors.tolist()]


def _json(row: Record) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=_plain, allow_nan=False)
    except InputError:  # of _plain, and a ValueError too
        raise
    except ValueError:
        raise InputError("JSON cannot hold NaN or infinity; write Parquet instead, or drop that column") from None


def _plain(value: object) -> str:
    """JSON form of the values that Parquet columns hold beside JSON's own."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    raise InputError(f"JSON cannot hold a {type(value).__name__}; write Parquet instead, or drop that column")


def _table(records: list[Record], schema: pa.Schema | None, *, settled: bool) -> pa.Table:
    """The records under a schema that the input declared or, `settled`, that the first rows had."""
    extra = sorted({name for record in records for name in record} - set(schema.names)) if schema is not None else []
    if extra:
        raise InputError(
            f"column {extra[0]!r} is new after the first rows, which settled Parquet's; write JSONL instead"
        )
    try:
        if settled:
            _check_types(schema, _inferred(records).schema)
        return pa.Table.from_pylist(records, schema=schema) if schema is not None else _inferred(records)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise InputError(f"the rows do not fit one Parquet schema ({error}); write JSONL instead") from None


def _check_types(settled: pa.Schema, own: pa.Schema) -> None:
    """Refuse what pyarrow would cut to fit in silence: fractions among whole numbers, new keys of an object."""
    for column in own:
        first = settled.field(column.name)
        both = pa.unify_schemas([pa.schema([first]), pa.schema([column])], promote_options="permissive")
        if both.types != [first.type]:
            raise InputError(
                f"column {column.name!r} holds {column.type} after the first rows, which settled it as {first.type}; "
                "write JSONL instead"
            )


def _writer(stream: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    try:
        return pq.ParquetWriter(stream, schema)
    except pa.ArrowException as error:  # objects without a key in any row
        raise InputError(f"Parquet cannot hold the rows ({error}); write JSONL instead") from None


def _inferred(records: list[Record]) -> pa.Table:
    """A table with every column any record of the block has, in the order of first appearance."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return pa.table({name: [record.get(name) for record in records] for name in names})
