"""Rows for every store: random directions, columns of many types, ids in many scripts."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa

from fivefold.jobs.store import Origin, Rows
from fivefold.vectors import FloatArray, normalize

DIMENSIONS = 64
ORIGIN = Origin("v3-nano", "retrieval.passage", DIMENSIONS, "float32", True, (0.6, 0.8))
WHEN = datetime.datetime(2026, 11, 21, 17, 30, 1, 500, tzinfo=datetime.timezone.utc)
SCRIPTS = ("row", "ligne é", "行", "ردیف", "a/b#c\"d'", "🦊")
SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("start", pa.int32()),
        ("stop", pa.int64()),
        ("text", pa.large_string()),
        ("weight", pa.float64()),
        ("seen", pa.bool_()),
        ("when", pa.timestamp("us", tz="UTC")),
        ("day", pa.date32()),
        ("tags", pa.list_(pa.string())),
        ("raw", pa.binary()),
    ]
)


def directions(count: int, seed: int = 0) -> FloatArray:
    return normalize(np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32))


def id_of(number: int) -> str:
    return f"{SCRIPTS[number % len(SCRIPTS)]} {number}"


def columns_of(number: int) -> dict[str, object]:
    return {
        "document": f"o'document {number // 10}",
        "start": number,
        "stop": 2**40 + number,
        "text": f"the text of fox{number} in the forest",
        "weight": None if number % 3 == 0 else number / 8,
        "seen": number % 2 == 0,
        "when": WHEN + datetime.timedelta(microseconds=number),
        "day": datetime.date(2026, 1, 1) + datetime.timedelta(days=number % 365),
        "tags": [f"t{number}", "ü"],
        "raw": bytes([number % 256, 0]),
    }


def rows(numbers: range, seed: int = 0) -> Rows:
    """Rows by number; `seed` decides their vectors."""
    vectors = directions(numbers.stop, seed)[numbers.start :]
    records = [columns_of(number) for number in numbers]
    return Rows([id_of(number) for number in numbers], vectors, pa.Table.from_pylist(records, SCHEMA))
