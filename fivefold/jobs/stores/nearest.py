"""Files with an approximate index: a Parquet folder, and beside its parts what usearch needs to search them quickly.

    DIR/*.parquet, _fivefold.json     as in `parquet`: they hold everything, the rest can be made again from them
    DIR/nearest-KEY.usearch           the index (HNSW); its keys are the rows' numbers over all parts
    DIR/nearest-KEY.f32               with a first pass: the vectors in full precision, to score its candidates by

KEY stands for exactly these parts and this form of index, so an index that does not fit is never read. Without `?first=` the
index compares whole vectors. With `first=binary` it compares their signs and with `first=N` their first N dimensions; that is
several times smaller and faster, and the candidates are then scored in full.

Shapes: N rows, d dimensions.
"""

from __future__ import annotations

import hashlib
import json
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
from usearch.index import Index

from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.stores.parquet import ParquetStore, as_float
from fivefold.jobs.stores.url import Url
from fivefold.vectors import Array, FloatArray, cut, normalize, to_ubinary

CONNECTIVITY, BREADTH_OF_ADDING, BREADTH_OF_SEARCH = 24, 192, 384
CANDIDATES = 20
"""Rows that a first pass hands on, as a multiple of those wanted."""
MOST = 4
"""Of every so many rows one or more wanted: then all are compared, for the walk through the graph misses some."""


def open_url(url: Url) -> NearestStore:
    """The folder that a URL names."""
    return NearestStore(Path(url.folder()), url.first_pass())


class NearestStore:
    """One folder. The first search after a change makes the index anew."""

    def __init__(self, folder: Path, first: str | int | None = None) -> None:
        self._rows = ParquetStore(folder)
        self._first = first
        self._key = ""
        self._index = Index(ndim=1)

    def origin(self) -> Origin | None:
        """From the folder's card."""
        return self._rows.origin()

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """The folder and its card."""
        self._rows.create(origin, schema)

    def upsert(self, rows: Rows) -> None:
        """Into the folder."""
        self._rows.upsert(rows)

    def delete(self, document: str) -> None:
        """From the folder."""
        self._rows.delete(document)

    def count(self) -> int:
        """Number of rows."""
        return self._rows.count()

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """By cosine, approximately; what a first pass finds is scored in full."""
        origin = self._rows.made().origin
        parts = self._rows.parts()
        self._bring_up_to_date(parts, origin)
        if not len(self._index):
            return []
        unit = normalize(np.asarray(query, dtype=np.float32))
        wanted = min(limit if self._first is None else CANDIDATES * limit, len(self._index))
        self._index.expansion_search = max(BREADTH_OF_SEARCH, 2 * wanted)
        found = self._index.search(self._compared(unit), wanted, exact=MOST * wanted >= len(self._index))
        rows = np.asarray(found.keys, dtype=np.int64)
        scores = 1 - np.asarray(found.distances) if self._first is None else self._full(origin)[rows] @ unit
        best = np.argsort(-scores, kind="stable")[:limit]
        starts = [0, *accumulate(map(len, parts.values()))]
        at = np.searchsorted(starts, rows[best], side="right") - 1
        names = list(parts)
        return self._rows.hits(
            [(float(scores[i]), names[part], int(rows[i]) - starts[part]) for i, part in zip(best, at, strict=True)]
        )

    def close(self) -> None:
        """Let the index go."""
        self._key, self._index = "", Index(ndim=1)
        self._rows.close()

    def _bring_up_to_date(self, parts: dict[str, set[str]], origin: Origin) -> None:
        named = json.dumps([self._first, list(parts)])
        key = hashlib.sha256(named.encode()).hexdigest()[:16]
        if key == self._key:
            return
        self._key, self._index = key, self._empty(origin)
        if self._file("usearch").exists():
            self._index.load(self._file("usearch"))
        else:
            self._build(parts, origin)

    def _build(self, parts: dict[str, set[str]], origin: Origin) -> None:
        """Write both files, the index last; then those of other keys are of no use."""
        with open(self._file("f32"), "wb") as full:
            for name in parts:
                for _, stored in self._rows.vectors(name):
                    vectors = as_float(stored, origin)
                    count = len(self._index)
                    self._index.add(np.arange(count, count + len(vectors)), self._compared(vectors))
                    if self._first is not None:
                        full.write(vectors.tobytes())
        unfinished = self._file("part")
        self._index.save(unfinished)
        unfinished.replace(self._file("usearch"))
        for path in self._rows.folder.glob("nearest-*"):
            if not path.name.startswith(f"nearest-{self._key}."):
                path.unlink(missing_ok=True)

    def _empty(self, origin: Origin) -> Index:
        width = self._compared(np.zeros(origin.dimensions, dtype=np.float32)).shape[-1]
        binary = self._first == "binary"
        return Index(
            ndim=8 * width if binary else width,
            metric="hamming" if binary else "cos",
            dtype="b1" if binary else "f32",
            connectivity=CONNECTIVITY,
            expansion_add=BREADTH_OF_ADDING,
            expansion_search=BREADTH_OF_SEARCH,
        )

    def _compared(self, unit: FloatArray) -> Array:
        """What the index holds of vectors [..., d]."""
        if self._first is None:
            return unit
        return to_ubinary(unit) if isinstance(self._first, str) else normalize(cut(unit, self._first))

    def _full(self, origin: Origin) -> FloatArray:
        """The vectors in full precision [N, d], mapped."""
        return np.memmap(self._file("f32"), dtype=np.float32, mode="r").reshape(-1, origin.dimensions)

    def _file(self, suffix: str) -> Path:
        return self._rows.folder / f"nearest-{self._key}.{suffix}"
