"""Files -> rows with a text: plain text, lines, JSONL, CSV, TSV, Parquet, Arrow; streamed, so a file may exceed memory.

Knows nothing of models. A path may be anything fsspec opens, such as `s3://bucket/rows.parquet`. A row that cannot be read is
an error naming file and row; none is ever left out in silence. Blank lines between JSONL or CSV rows are not rows. Rows count
from 1 (JSONL and lines: the line's number).
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from fivefold.errors import InputError

STDIN = "-"
STDIN_NAME = "standard input"
ARROW_MAGIC = b"ARROW1"
ROWS_AT_A_TIME = 1024
Data = TypeVar("Data", bytes, pa.RecordBatch)
Record: TypeAlias = dict[str, Any]
Found: TypeAlias = "Record | InputError"
Numbered: TypeAlias = Iterator[tuple[int, Found]]
"""Records by row number; the error of a row that cannot be read, where the rows after it can."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input row: where it stands, all its columns, and the text and task found in them."""

    source: str
    number: int
    record: Record
    text: str
    task: str | None

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.source}, row {self.number}"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns matter: the text's, and optionally each row's task."""

    text: str = "text"
    task: str | None = None


def rows(inputs: list[str], kind: str | None, columns: Columns) -> Iterator[Row]:
    """Every row of every input, in order; `kind` None goes by suffix."""
    for path in inputs:
        chosen = kind or kind_of(path)
        fitting = columns if chosen in TABLES else Columns(task=columns.task)
        name = STDIN_NAME if path == STDIN else path
        for number, found in read(path, chosen):
            if isinstance(found, InputError):
                raise found
            yield row_of(name, number, found, fitting)


def read(path: str, kind: str) -> Numbered:
    """Every record of one input. Raises where the file as a whole is no good."""
    with _opened(path) as stream:
        yield from READERS[kind](stream, STDIN_NAME if path == STDIN else path)


def kind_of(path: str) -> str:
    """Format of an input by its suffix; standard input is lines."""
    return "lines" if path == STDIN else SUFFIXES.get(Path(path).suffix.lower(), "text")


def schema_of(path: str, kind: str) -> pa.Schema | None:
    """The columns' types where the file itself knows them, else None."""
    if kind not in SELF_DESCRIBING:
        return None
    with _opened(path) as stream:
        schema = _parquet(stream, path).schema_arrow if kind == "parquet" else _arrow(stream, path).schema
        return schema.remove_metadata()


def parquet_schema(inputs: list[str], kind: str | None) -> pa.Schema | None:
    """The columns' types where every input is a Parquet file of the same schema, else None."""
    if any(path == STDIN or (kind or kind_of(path)) != "parquet" for path in inputs):
        return None
    schemas = [schema_of(path, "parquet") for path in inputs]
    if any(schema != schemas[0] for schema in schemas[1:]):
        raise InputError("the Parquet inputs have different columns or types; embed them one by one")
    return schemas[0]


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = open(path, "rb") if "://" not in path else fsspec.open(path, "rb").open()  # noqa: SIM115 - closed below
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        with stream:
            yield stream
    except OSError as error:  # a disk or a network that fails later
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def row_of(path: str, number: int, record: Record, columns: Columns) -> Row:
    """The row of a record; raises `InputError` where its text or task is no good."""
    where = f"{path}, row {number}"
    if columns.text not in record:
        raise InputError(f"{where}: there is no {columns.text!r}; it has {_names(record)}. Name the text with --field")
    text = record[columns.text]
    if not isinstance(text, str):
        raise InputError(f"{where}: {columns.text!r} must be a text, got {type(text).__name__}; fill or remove the row")
    if columns.task is None:
        return Row(path, number, record, text, None)
    if columns.task not in record:
        raise InputError(f"{where}: there is no {columns.task!r}; it has {_names(record)}. See --task-field")
    task = record[columns.task]
    if not isinstance(task, str | None):
        raise InputError(f"{where}: {columns.task!r} must be a task's name, got {type(task).__name__}")
    return Row(path, number, record, text, task or None)


def _names(record: Record) -> str:
    return ", ".join(map(repr, record)) or "no columns at all"


def _decoded(data: bytes, path: str, number: int) -> str:
    try:
        return data.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, row {number}: not UTF-8 at byte {error.start} of it; convert the file to UTF-8 first"
        ) from None


def _or_its_error(make: Callable[[Data, str, int], Record], data: Data, path: str, number: int) -> Found:
    try:
        return make(data, path, number)
    except InputError as error:
        return error


def _text(stream: BinaryIO, path: str) -> Numbered:
    yield 1, _or_its_error(_text_record, stream.read(), path, 1)


def _text_record(data: bytes, path: str, number: int) -> Record:
    return {"file": path, "text": _decoded(data, path, number)}


def _lines(stream: BinaryIO, path: str) -> Numbered:
    for number, line in enumerate(stream, 1):
        yield number, _or_its_error(_line_record, line, path, number)


def _line_record(line: bytes, path: str, number: int) -> Record:
    return {"file": path, "line": number, "text": _decoded(line, path, number).rstrip("\r\n")}


def _jsonl(stream: BinaryIO, path: str) -> Numbered:
    for number, line in enumerate(stream, 1):
        if line.strip(b" \t\r\n"):
            yield number, _or_its_error(_json_record, line, path, number)


def _json_record(line: bytes, path: str, number: int) -> Record:
    try:
        record = json.loads(_decoded(line, path, number))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}, row {number}: not valid JSON ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{path}, row {number}: must be a JSON object, got {type(record).__name__}")
    return record


def _csv(stream: BinaryIO, path: str, delimiter: str = ",") -> Numbered:
    csv.field_size_limit(sys.maxsize)
    decoded = (line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(stream))
    reader = csv.DictReader(decoded, delimiter=delimiter, strict=True)
    number, begun = 0, 1
    try:
        _check_names([name for name in reader.fieldnames or () if name], path)
        begun = reader.reader.line_num + 1
        for number, record in enumerate(reader, 1):
            begun = reader.reader.line_num + 1
            yield number, _complete(record, path, number)
    except csv.Error as error:
        raise InputError(f"{path}, row {number + 1} (line {begun}): {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, row {number + 1} (line {reader.reader.line_num + 1}): not UTF-8 at byte {error.start} of it; "
            "convert the file to UTF-8 first"
        ) from None


def _check_names(names: list[str], path: str) -> None:
    """A record has one value under a name; of two columns of one name it would lose the first."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"{path}: several columns are called {twice[0]!r}; give each a name of its own")


def _complete(record: dict[Any, Any], path: str, number: int) -> Found:
    if None in record:
        return InputError(f"{path}, row {number}: more cells than the header has; quote cells that hold the separator")
    missing = [name for name, cell in record.items() if cell is None]
    if missing:
        return InputError(f"{path}, row {number}: no cell for {', '.join(map(repr, missing))}; the row is too short")
    return record


def _tsv(stream: BinaryIO, path: str) -> Numbered:
    return _csv(stream, path, "\t")


def _parquet(stream: BinaryIO, path: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(stream if path != STDIN_NAME else io.BytesIO(stream.read()))
        _check_names(file.schema_arrow.names, path)
        return file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from None


def _parquet_rows(stream: BinaryIO, path: str) -> Numbered:
    number = 0
    try:
        for batch in _parquet(stream, path).iter_batches(batch_size=ROWS_AT_A_TIME):
            yield from _batch_rows(batch, path, number)
            number += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}, after row {number}: damaged Parquet data ({error})") from None


def _batch_rows(batch: pa.RecordBatch, path: str, before: int) -> Numbered:
    """Rows as Python's values; one by one where a row has a value that Python cannot hold."""
    try:
        found: list[Found] = batch.to_pylist()
    except (ValueError, OverflowError):
        found = [_or_its_error(_batch_record, batch.slice(i, 1), path, before + i + 1) for i in range(len(batch))]
    yield from enumerate(found, before + 1)


def _batch_record(row: pa.RecordBatch, path: str, number: int) -> Record:
    try:
        records: list[Record] = row.to_pylist()
    except (ValueError, OverflowError) as error:  # bytes that are no UTF-8 in a text, dates out of range
        raise InputError(f"{path}, row {number}: a value cannot be read ({error}); fix or remove the row") from None
    return records[0]


def _arrow(stream: BinaryIO, path: str) -> pa.RecordBatchReader | pa.RecordBatchFileReader:
    """Both forms of Arrow's IPC: a file with a footer (Feather), or a stream, as `datasets` saves it."""
    if path == STDIN_NAME:
        stream = io.BytesIO(stream.read())
    is_file = stream.read(len(ARROW_MAGIC)) == ARROW_MAGIC
    stream.seek(0)
    try:
        reader = pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)
        _check_names(reader.schema.names, path)
        return reader
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Arrow file ({error})") from None


def _arrow_batches(reader: pa.RecordBatchReader | pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchReader):
        yield from reader
    else:
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))


def _arrow_rows(stream: BinaryIO, path: str) -> Numbered:
    number = 0
    try:
        for batch in _arrow_batches(_arrow(stream, path)):
            for start in range(0, len(batch), ROWS_AT_A_TIME):
                part = batch.slice(start, ROWS_AT_A_TIME)
                yield from _batch_rows(part, path, number)
                number += len(part)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}, after row {number}: damaged Arrow data ({error})") from None


READERS: dict[str, Callable[[BinaryIO, str], Numbered]] = {
    "text": _text,
    "lines": _lines,
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet_rows,
    "arrow": _arrow_rows,
}
TABLES = frozenset({"jsonl", "csv", "tsv", "parquet", "arrow"})
"""Formats whose columns the user names; the others have `file`, `line` and `text`."""
SELF_DESCRIBING = frozenset({"parquet", "arrow"})
"""Formats that declare the types of their columns."""
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".lines": "lines",
}
