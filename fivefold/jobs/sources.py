"""The corpus: from the names of inputs to files in a settled order, and from files to entries with an id.

An input is a file, a folder, or the URL of either. A folder gives its tables, or where it has none its text files; a folder
that `datasets` saved gives the files that it lists.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa

from fivefold.errors import InputError
from fivefold.jobs import records
from fivefold.jobs.records import TABLES, Columns, Record, Row
from fivefold.tokenizer import encodable

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
DATASET_STATE = "state.json"
MAX_ROW_CHARACTERS = 4 << 20
"""A million tokens, a shelf of books: a row over it is not a text but a mistake, and would take the memory of its worker."""
OUTPUT_COLUMNS = ("id", "vector", "text")
CHUNK_COLUMNS = ("document", "start", "stop")


@dataclass(frozen=True, slots=True)
class File:
    """One file: its path or URL, and its format."""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the columns that matter. Without `id` a row is called by its file and number, a text file by its path."""

    text: str = "text"
    task: str | None = None
    id: str | None = None
    chunks: bool = False

    def columns(self, kind: str) -> Columns:
        """The text's and the task's in a file of this format."""
        return Columns(self.text if kind in TABLES else "text", self.task)

    def clashes(self, names: Sequence[str]) -> list[str]:
        """Columns of the input that would stand under the name of one of ours."""
        own = {*OUTPUT_COLUMNS, *(CHUNK_COLUMNS if self.chunks else ())}
        return [name for name in names if name in own and (name, name) not in (("id", self.id), ("text", self.text))]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the corpus: its id, and the row or why it cannot be used."""

    id: str
    found: Row | InputError


def files(inputs: Sequence[str], kind: str | None) -> tuple[File, ...]:
    """Every file of the inputs, in order; `kind` None goes by suffix."""
    found = [File(path, kind or records.kind_of(path)) for name in inputs for path in _paths(name, kind)]
    seen: set[str] = set()
    for file in found:
        if file.path in seen:
            raise InputError(f"{file.path} is given twice; every row must come once")
        seen.add(file.path)
    return tuple(found)


def check(file: File, fields: Fields) -> None:
    """Refuse a file that lacks a column, or has one of a wrong type, by its schema or else by its first row."""
    if file.kind not in TABLES:
        return
    schema = records.schema_of(file.path, file.kind)
    types = {name: _Holds.of(schema.field(name).type) for name in schema.names} if schema is not None else _first(file)
    if types is None:
        return
    wanted = ((fields.text, "text", "--field"), (fields.task, "text", "--task-field"), (fields.id, "id", "--id-field"))
    for name, use, option in wanted:
        if name is None:
            continue
        if name not in types:
            has = ", ".join(map(repr, types)) or "no columns at all"
            raise InputError(f"{file.path}: there is no column {name!r}; it has {has}. Name it with {option}")
        holds = types[name]
        if not (holds.text or holds.nothing or (use == "id" and holds.whole)):
            fits = "texts or whole numbers" if use == "id" else "texts"
            raise InputError(f"{file.path}: the column {name!r} must hold {fits}, it holds {holds.name}; see {option}")
    _check_clashes(file.path, list(types), fields)


def entries(file: File, fields: Fields) -> Iterator[Entry]:
    """Every row of one file."""
    columns = fields.columns(file.kind)
    for number, record in records.read(file.path, file.kind):
        name = f"{file.path}:{number}" if file.kind != "text" else file.path
        if isinstance(record, InputError):
            yield Entry(name, record)
            continue
        try:
            name = _id(record, file, number, fields, name)
            if file.kind in TABLES:
                _check_clashes(f"{file.path}, row {number}", list(record), fields)
            yield Entry(name, _checked(records.row_of(file.path, number, record, columns)))
        except InputError as error:
            yield Entry(name, error)


def _checked(row: Row) -> Row:
    if len(row.text) > MAX_ROW_CHARACTERS:
        raise InputError(
            f"{row.where}: {len(row.text):,} characters, more than the {MAX_ROW_CHARACTERS:,} of the longest text; split it"
        )
    return row


def _id(record: Record, file: File, number: int, fields: Fields, otherwise: str) -> str:
    if fields.id is None or file.kind not in TABLES:
        return otherwise
    value = record.get(fields.id)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        got = "none" if value in (None, "") else type(value).__name__
        raise InputError(f"{file.path}, row {number}: the id {fields.id!r} must be a text or a whole number, got {got}")
    return encodable(str(value))


def _check_clashes(where: str, names: list[str], fields: Fields) -> None:
    if clash := fields.clashes(names):
        hint = "; pass --id-field id if it is the rows' id, else rename it" if clash[0] == "id" else "; rename it"
        raise InputError(f"{where}: the output has a column {clash[0]!r} of its own{hint}")


@dataclass(frozen=True, slots=True)
class _Holds:
    """What a column holds, as far as it matters here."""

    name: str
    text: bool = False
    whole: bool = False
    nothing: bool = False

    @classmethod
    def of(cls, kind: pa.DataType) -> _Holds:
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
        return cls(str(kind), text, pa.types.is_integer(inner), pa.types.is_null(inner))

    @classmethod
    def value(cls, value: Any) -> _Holds:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return cls(type(value).__name__, isinstance(value, str), whole, value is None)


def _first(file: File) -> dict[str, _Holds] | None:
    """Columns of the first record that can be read; None where there is none."""
    for _, record in records.read(file.path, file.kind):
        if not isinstance(record, InputError):
            return {name: _Holds.value(value) for name, value in record.items()}
    return None


def _paths(name: str, kind: str | None) -> list[str]:
    """The file, or the files of the folder, that a name stands for."""
    try:
        system, root = fsspec.core.url_to_fs(name)
        if not system.isdir(root):
            if not system.exists(root):
                raise InputError(f"cannot read {name}: there is no such file or folder")
            return [name]
        inside = sorted(path[len(root) :].lstrip("/") for path in system.find(root))
        if DATASET_STATE in inside:
            inside = _listed(name, json.loads(system.cat_file(posixpath.join(root, DATASET_STATE))))
    except (OSError, ImportError, ValueError) as error:
        raise error if isinstance(error, InputError) else InputError(f"cannot read {name}: {error}") from None
    return [posixpath.join(name, path) for path in _taken(name, inside, kind)]


def _listed(name: str, state: dict[str, Any]) -> list[str]:
    """The data files of a folder that `datasets` saved."""
    if state.get("_indices_data_files"):
        raise InputError(f"{name} holds a selection of a dataset's rows; save it after flatten_indices()")
    return [str(file["filename"]) for file in state.get("_data_files") or ()]


def _taken(name: str, inside: list[str], kind: str | None) -> list[str]:
    """Of the files in a folder those to read: no hidden ones; tables before texts."""
    shown = [path for path in inside if not any(part.startswith((".", "_")) for part in path.split("/"))]
    tables = [path for path in shown if records.kind_of(path) in TABLES]
    texts = [path for path in shown if posixpath.splitext(path)[1].lower() in TEXT_SUFFIXES]
    taken = shown if kind is not None else tables or texts
    if not taken:
        raise InputError(f"there is nothing to read in {name}: no table, and no {', '.join(TEXT_SUFFIXES)}")
    return taken
