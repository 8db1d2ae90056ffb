"""A folder of Parquet files that any tool reads: rows with `id`, `vector` and the columns. Search compares with every row.

    DIR/_fivefold.json          the card
    DIR/20261121-...parquet     a part: what one upsert wrote, or what is left of it

A part gets its name when it is complete. Rows that a later part replaces are then taken out of the parts before it; where a
run was killed between the two, the next to open the folder does so. One process writes at a time, others wait.

Shapes: N rows, d dimensions.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from fivefold.errors import StoreError
from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.stores.card import Card, Carded, stranger
from fivefold.jobs.stores.columns import check_columns
from fivefold.jobs.stores.url import Url
from fivefold.vectors import Array, FloatArray, normalize

CARD = "_fivefold.json"
ROWS_A_PART = 65536
ROWS_A_GROUP = 4096

_AS_FLOAT: dict[str, Callable[[Array], Array]] = {
    "float32": lambda stored: stored,
    "int8": lambda stored: stored,
    "uint8": lambda stored: stored.astype(np.int16) - 128,
    "ubinary": lambda stored: np.unpackbits(stored, axis=-1).astype(np.int8) * 2 - 1,
    "binary": lambda stored: (
        np.unpackbits((stored.astype(np.int16) + 128).astype(np.uint8), axis=-1).astype(np.int8) * 2 - 1
    ),
}
"""The directions that stored vectors stand for, by precision; where two bits are left, plus and minus one."""


def open_url(url: Url) -> ParquetStore:
    """The folder that a URL names."""
    return ParquetStore(Path(url.folder()))


def as_float(stored: Array, origin: Origin) -> FloatArray:
    """Stored vectors of any precision as float32 [N, d] of unit length."""
    return normalize(_AS_FLOAT[origin.precision](stored)[:, : origin.dimensions].astype(np.float32))


class ParquetStore(Carded):
    """One folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where = f"the Parquet folder {folder}"
        self._parts: dict[str, set[str]] = {}

    def card(self) -> Card | None:
        """What the folder says of itself."""
        try:
            return Card.from_json((self.folder / CARD).read_text(encoding="utf-8"), self._where)
        except FileNotFoundError:
            if any(self.folder.glob("*.parquet")):
                raise stranger(self._where) from None
            return None

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """The folder and its card."""
        check_columns(schema)
        with self._locked():
            self._put(CARD, lambda path: path.write_text(Card(origin, schema).to_json(), encoding="utf-8"))

    def upsert(self, rows: Rows) -> None:
        """One part for many rows."""
        self.made()
        with self._locked():
            for piece in rows.slices(ROWS_A_PART):
                self._refresh()
                name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
                self._write(name, _table(piece))
                self._parts[name] = set(piece.ids)
                self._settle()

    def delete(self, document: str) -> None:
        """From every part that has it."""
        self.made()
        with self._locked():
            self._refresh()
            for name in list(self._parts):
                column = pq.read_table(self.folder / name, columns=["document"])["document"]
                mask = pc.fill_null(pc.equal(column, document), False)
                if pc.any(mask).as_py():
                    self._keep(name, pc.invert(mask))

    def count(self) -> int:
        """Number of rows."""
        return sum(map(len, self.parts().values()))

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """By cosine with every row, a row group at a time."""
        origin = self.made().origin
        unit = normalize(np.asarray(query, dtype=np.float32))
        best: list[tuple[float, str, int]] = []
        for name in self.parts():
            for start, stored in self.vectors(name):
                scores = as_float(stored, origin) @ unit
                rows = np.argpartition(-scores, limit)[:limit] if len(scores) > limit else np.arange(len(scores))
                best += [(float(scores[row]), name, start + int(row)) for row in rows]
                best = sorted(best, reverse=True)[:limit]
        return self.hits(best)

    def parts(self) -> dict[str, set[str]]:
        """The ids in each part, oldest part first; no id is in two."""
        self.made()
        if self._names() != list(self._parts):
            self._refresh()
            if sum(map(len, self._parts.values())) > len(set().union(*self._parts.values())):
                with self._locked():
                    self._settle()
        return self._parts

    def vectors(self, part: str) -> Iterator[tuple[int, Array]]:
        """Stored vectors of a part, a row group at a time, each with the number of its first row in the part."""
        start = 0
        with pq.ParquetFile(self.folder / part) as file:
            for batch in file.iter_batches(ROWS_A_GROUP, columns=["vector"]):
                vectors = batch.column(0)
                yield start, vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1)
                start += len(vectors)

    def hits(self, places: list[tuple[float, str, int]]) -> list[Hit]:
        """The rows at (score, part, row), in that order."""
        found: dict[tuple[str, int], dict[str, object]] = {}
        for name in {part for _, part, _ in places}:
            rows = [row for _, part, row in places if part == name]
            columns = [column for column in pq.read_schema(self.folder / name).names if column != "vector"]
            taken = pq.read_table(self.folder / name, columns=columns).take(rows).to_pylist()
            found |= {(name, row): record for row, record in zip(rows, taken, strict=True)}
        return [Hit(str(found[part, row].pop("id")), score, found[part, row]) for score, part, row in places]

    def close(self) -> None:
        """Nothing stays open."""
        self._parts.clear()

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.parquet"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                yield
        except OSError as error:
            raise StoreError(f"{self._where}: {error.strerror or error}") from error

    def _refresh(self) -> None:
        """Learn the ids of parts that came, forget those of parts that went."""
        self._parts = {name: self._parts.get(name) or set(self._ids(name).to_pylist()) for name in self._names()}

    def _ids(self, name: str) -> pa.ChunkedArray:
        return pq.read_table(self.folder / name, columns=["id"])["id"]

    def _settle(self) -> None:
        """Take rows out of parts that a later part has."""
        later: set[str] = set()
        for name in reversed(list(self._parts)):
            ids = self._parts[name]
            if not ids.isdisjoint(later):
                self._keep(name, pc.invert(pc.is_in(self._ids(name), pa.array(list(ids & later), pa.string()))))
            later |= ids

    def _keep(self, name: str, mask: pa.ChunkedArray) -> None:
        """Write a part again with the rows of the mask; under a new name, for whoever goes by names."""
        kept = pq.read_table(self.folder / name).filter(mask)
        del self._parts[name]
        if len(kept):
            again = f"{name.split('-')[0]}-{uuid.uuid4().hex[:8]}.parquet"
            self._write(again, kept)
            self._parts[again] = set(kept["id"].to_pylist())
            self._parts = dict(sorted(self._parts.items()))
        (self.folder / name).unlink()

    def _write(self, name: str, table: pa.Table) -> None:
        self._put(name, lambda path: pq.write_table(table, path, row_group_size=ROWS_A_GROUP))

    def _put(self, name: str, write: Callable[[Path], object]) -> None:
        """A file that is whole, on disk, or not there."""
        part = self.folder / f".{name}.part"
        try:
            write(part)
            with open(part, "rb") as stream:
                os.fsync(stream.fileno())
            part.replace(self.folder / name)
        finally:
            part.unlink(missing_ok=True)


def _table(rows: Rows) -> pa.Table:
    flat = pa.array(np.ascontiguousarray(rows.vectors).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(flat, rows.vectors.shape[1])
    names = ["id", "vector", *rows.columns.column_names]
    return pa.table([pa.array(rows.ids, pa.string()), vectors, *rows.columns.columns], names=names)
