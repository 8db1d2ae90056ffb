"""A folder of embedded passages on disk: an embedded vector store that knows what it was made from.

    DIR/settings.json     model, task, dimensions, ...: what every vector here shares; made first, never changed
    DIR/passages.lance    one row a passage: vector, source, start, stop, text
    DIR/sources.lance     one row a file that is completely in: source, fingerprint, passages

A file's passages are deleted, then added, then its row in `sources` is written, so a run that is killed leaves a file
that will simply be done again. Knows nothing of how passages are embedded.

Shapes: d dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from fivefold.errors import InputError
from fivefold.vectors import FloatArray

FORMAT = 1
SAME_MODEL_COSINE = 0.998
"""A model that says something this different about the probe text is another model; dtypes stay far above."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all vectors of an index share. `probe` is the model's own vector of a fixed text: its fingerprint."""

    model: str
    task: str | None
    dimensions: int
    lines: bool
    chunk_tokens: int
    probe: tuple[float, ...]
    normalize: bool = True
    format: int = FORMAT

    def differences(self, other: Settings) -> list[str]:
        """Names of what differs, with both values."""
        mine, theirs = asdict(self), asdict(other)
        different = [name for name in mine if name != "probe" and mine[name] != theirs[name]]
        found = [f"{name}: {mine[name]!r} in the index, {theirs[name]!r} asked for" for name in different]
        if not found and float(np.dot(self.probe, other.probe)) < SAME_MODEL_COSINE:
            found.append(f"model: {self.model!r} has other weights now than when the index was made")
        return found


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of one source: half-open character span and text."""

    source: str
    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found, with its cosine to the query."""

    score: float
    passage: Passage


class Index:
    """An open index. Make one with `Index.create` or `Index.open`."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self._store = lancedb.connect(folder)
        self._passages = self._store.create_table("passages", schema=_passages(settings.dimensions), exist_ok=True)
        self._sources = self._store.create_table("sources", schema=_SOURCES, exist_ok=True)

    @classmethod
    def create(cls, folder: Path, settings: Settings) -> Index:
        """A new, empty index."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
        return cls(folder, settings)

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> Index:
        """An index that is there; refuses one made with other settings."""
        stored = read_settings(folder)
        differences = stored.differences(settings)
        if differences:
            raise InputError(
                f"the index {folder} does not fit ({'; '.join(differences)}); ask with its settings, "
                "name another --index, or pass --rebuild to make it anew"
            )
        return cls(folder, stored)

    def fingerprints(self) -> dict[str, str]:
        """Every source that is completely in, with its fingerprint."""
        columns = self._sources.to_arrow().select(["source", "fingerprint"]).to_pydict()
        return dict(zip(columns["source"], columns["fingerprint"], strict=True))

    def __len__(self) -> int:
        """Number of passages."""
        return int(self._passages.count_rows())

    def remove(self, source: str) -> None:
        """Take a source and its passages out."""
        where = "source = '" + source.replace("'", "''") + "'"
        for table in (self._sources, self._passages):
            if table.count_rows(where):
                table.delete(where)

    def put(self, source: str, fingerprint: str, blocks: Iterator[tuple[list[Passage], FloatArray]]) -> int:
        """Replace a source's passages by those of `blocks` (passages with vectors [n, d]); how many there are."""
        self.remove(source)
        count = 0
        for passages, vectors in blocks:
            if passages:
                self._passages.add(_rows(passages, vectors))
            count += len(passages)
        self._sources.add(pa.table({"source": [source], "fingerprint": [fingerprint], "passages": [count]}, _SOURCES))
        return count

    def tidy(self) -> None:
        """Merge the small pieces that updates leave."""
        self._passages.optimize()
        self._sources.optimize()

    def search(self, vector: FloatArray, top: int) -> list[Hit]:
        """The `top` passages of highest cosine to vector [d]; exact, every passage is compared."""
        found = self._passages.search(vector).distance_type("cosine").limit(top).to_list()
        fields = ("source", "start", "stop", "text")
        return [Hit(1 - row["_distance"], Passage(*(row[name] for name in fields))) for row in found]


def exists(folder: Path) -> bool:
    """Whether an index is in the folder."""
    return (folder / "settings.json").is_file()


def read_settings(folder: Path) -> Settings:
    """What the index in the folder was made with."""
    path = folder / "settings.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Settings(**{**raw, "probe": tuple(raw["probe"])})
    except FileNotFoundError:
        raise InputError(f"there is no index in {folder}; name files to make one from") from None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} is not an index this fivefold can read; pass --rebuild to make it anew") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process changes an index at a time; another is refused at once."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"another fivefold is changing the index {folder}; wait until it is done") from None


_SOURCES = pa.schema([("source", pa.string()), ("fingerprint", pa.string()), ("passages", pa.int64())])


def _passages(dimensions: int) -> pa.Schema:
    return pa.schema(
        [
            ("vector", pa.list_(pa.float32(), dimensions)),
            ("source", pa.string()),
            ("start", pa.int64()),
            ("stop", pa.int64()),
            ("text", pa.string()),
        ]
    )


def _rows(passages: list[Passage], vectors: FloatArray) -> pa.Table:
    columns = {name: [getattr(passage, name) for passage in passages] for name in ("source", "start", "stop", "text")}
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    vector = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table({"vector": vector, **columns}, schema=_passages(vectors.shape[1]))
