"""Columns of any Arrow type as values that JSON has, and back: most stores keep no other."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

import pyarrow as pa

from fivefold.errors import InputError

RESERVED = ("id", "vector")
"""Names of the stores' own columns."""
Plain = dict[str, object]
types = pa.types


def check_columns(schema: pa.Schema) -> None:
    """Refuse names that are the store's own, names that come twice, and types that have no plain form."""
    for name in schema.names:
        if name in RESERVED or schema.names.count(name) > 1:
            why = "is the store's own name for something else" if name in RESERVED else "comes twice"
            raise InputError(f"the column {name!r} {why}; rename it")
    for field in schema:
        _plain_type(field.name, field.type)


def to_plain(table: pa.Table) -> list[Plain]:
    """One record a row: numbers, texts, booleans, `None`, and lists and mappings of those."""
    arrays = []
    for field in table.schema:
        column = table[field.name].cast(_plain_type(field.name, field.type)).to_pylist()
        arrays.append([_text_of(cell) for cell in column] if _is_bytes(field.type) else column)
    return [dict(zip(table.column_names, cells, strict=True)) for cells in zip(*arrays, strict=True)]


def to_flat(table: pa.Table) -> list[Plain]:
    """`to_plain` for stores without `None`, lists and mappings: the first is left out, the others are JSON texts."""
    return [
        {name: json.dumps(v) if isinstance(v, list | dict) else v for name, v in record.items() if v is not None}
        for record in to_plain(table)
    ]


def from_plain(record: Mapping[str, object], schema: pa.Schema) -> Plain:
    """A record's values in the columns' own types again; what is not there is `None`."""
    return {field.name: _typed(record.get(field.name), field.type) for field in schema}


def _typed(value: object, kind: pa.DataType) -> object:
    if value is None:
        return None
    if isinstance(value, str) and _is_bytes(kind):
        return base64.b64decode(value)
    if isinstance(value, str) and types.is_nested(kind):  # of a flat record
        value = json.loads(value)
    inner = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_integer(inner):
        return int(value)  # type: ignore[call-overload]  # some stores have floats only, or decimals
    given = pa.array([value], _plain_type("", inner) if isinstance(value, int) else None)
    return given.cast(inner)[0].as_py()


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _text_of(cell: bytes | None) -> str | None:
    return None if cell is None else base64.b64encode(cell).decode("ascii")


_PLAIN: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], pa.DataType]], ...] = (
    (types.is_duration, lambda kind: pa.int64()),
    (types.is_time64, lambda kind: pa.int64()),
    (types.is_time32, lambda kind: pa.int32()),
    (types.is_temporal, lambda kind: pa.string()),
    (types.is_decimal, lambda kind: pa.string()),
    (types.is_dictionary, lambda kind: kind.value_type),
    (_is_bytes, lambda kind: pa.binary()),
    (types.is_primitive, lambda kind: kind),
    (types.is_string, lambda kind: kind),
    (types.is_large_string, lambda kind: kind),
    (types.is_string_view, lambda kind: pa.string()),
    (types.is_null, lambda kind: kind),
)
"""What a column is cast to, by the first test that holds of its type. Lists and structs hold of none: see below."""


def _plain_type(name: str, kind: pa.DataType) -> pa.DataType:
    for holds, plain in _PLAIN:
        if holds(kind):
            return plain(kind)
    children = [kind.field(i).type for i in range(kind.num_fields)]
    if types.is_nested(kind) and not types.is_map(kind) and all(_plain_type(name, c).equals(c) for c in children):
        return kind
    raise InputError(f"the column {name!r} has the type {kind}, which this store cannot keep; drop or cast the column")
