"""Vectors and JSON as bytes. Floats go from numpy to text in one step; knows nothing of requests.

Shapes: S vectors, d kept dims.
"""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson

from fivefold.errors import InputError
from fivefold.vectors import PRECISIONS, Array, FloatArray

_BLOCK = 64
"""Rows turned into text at a time; between blocks other threads have their turn."""


def _lists(precision: str) -> Callable[[FloatArray], Iterable[bytes]]:
    """Rows as JSON lists of numbers of one precision."""

    def rows(vectors: FloatArray) -> Iterable[bytes]:
        for start in range(0, len(vectors), _BLOCK):
            for row in PRECISIONS[precision](vectors[start : start + _BLOCK]):
                yield numbers(row)

    return rows


def _base64(vectors: FloatArray) -> Iterable[bytes]:
    """Rows as JSON strings: little-endian float32 in base64."""
    for row in np.ascontiguousarray(vectors, dtype="<f4"):
        yield b'"' + base64.b64encode(row.tobytes()) + b'"'


# float32 vectors [S, d], cut and normalised -> the JSON value of each row.
ENCODINGS: dict[str, Callable[[FloatArray], Iterable[bytes]]] = {
    "float": _lists("float32"),
    "base64": _base64,
    **{name: _lists(name) for name in PRECISIONS if name != "float32"},
}


def check_encodings(names: list[str], field: str) -> None:
    """Refuse an encoding that nobody knows."""
    for name in names:
        if name not in ENCODINGS:
            raise InputError(f"unknown {field} {name!r}; choose from: {', '.join(ENCODINGS)}")


def values(vectors: FloatArray, encoding: str | list[str]) -> list[bytes]:
    """The JSON value of each row: for a list of encodings an object keyed by them, as Jina documents it."""
    if isinstance(encoding, str):
        return list(ENCODINGS[encoding](vectors))
    columns = [[b'"%s":' % name.encode() + value for value in ENCODINGS[name](vectors)] for name in encoding]
    return [b"{" + b",".join(row) + b"}" for row in zip(*columns, strict=True)] if len(vectors) else []


def array(items: Iterable[bytes]) -> bytes:
    """A JSON list of values that are JSON already."""
    return b"[" + b",".join(items) + b"]"


def numbers(row: Array) -> bytes:
    """A numpy array as JSON, floats in the fewest digits that give them back."""
    return orjson.dumps(np.ascontiguousarray(row), option=orjson.OPT_SERIALIZE_NUMPY)


def dumps(value: Any) -> bytes:
    """Plain data as JSON. A lone surrogate that a caller sent goes back as it came, escaped."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode("ascii")


def loads(body: bytes) -> Any:
    """JSON to plain data; raises ValueError for whatever is not JSON.

    Half of a surrogate pair, as JavaScript sends when it cuts a text inside an emoji, is taken: the tokenizer reads it as
    U+FFFD.
    """
    gc.disable()  # it would walk over the new lists again and again: 7 s for 32 MB of "[]" that are parsed in 0.7
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as refused:
        if b"\\u" not in body:
            raise
        try:
            return json.loads(body, parse_constant=_no_constant)
        except RecursionError:
            raise refused from None
    finally:
        gc.enable()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
