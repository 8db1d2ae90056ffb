"""Where vectors go and where they are looked for: the one seam between the job, the search and every vector store.

Shapes: N rows, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from fivefold.vectors import Array, FloatArray


@dataclass(frozen=True, slots=True)
class Origin:
    """What all vectors of a collection were made with. It is kept in the store's own metadata, and vectors or queries of
    another origin are refused.

    `probe` is the model's own full-precision vector of a fixed text: its fingerprint, told apart by cosine.
    """

    model: str
    task: str | None
    dimensions: int
    precision: str
    normalized: bool
    probe: tuple[float, ...]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Origin:
        """Inverse of `to_dict`, also after JSON."""
        return cls(**{**fields, "probe": tuple(fields["probe"])})


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to be stored: an id each, unique; vectors [N, d] as `Embedder` gives them; and what goes along: `text`, for a chunk
    `document`, `start` and `stop`, and the user's own columns."""

    ids: list[str]
    vectors: Array
    columns: pa.Table

    def slices(self, size: int) -> Iterator[Rows]:
        """The same rows, at most `size` at a time: what one request to a store holds."""
        for start in range(0, len(self.ids), size):
            part = slice(start, start + size)
            yield Rows(self.ids[part], self.vectors[part], self.columns.slice(start, size))


@dataclass(frozen=True, slots=True)
class Hit:
    """A row found: its score (more is better; the cosine, where it was a search by vector) and its columns."""

    id: str
    score: float
    columns: dict[str, object]


class Store(Protocol):
    """One collection of a vector store. Errors of its client become `fivefold.errors` that say what to do."""

    def origin(self) -> Origin | None:
        """What the collection was made with; `None` where there is no collection yet."""
        ...

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """Make the collection for rows whose columns have this schema, with its origin."""
        ...

    def upsert(self, rows: Rows) -> None:
        """Store rows for good: those whose id is there are replaced. Doing it twice is the same as once."""
        ...

    def delete(self, document: str) -> None:
        """Take out the rows whose `document` is this one."""
        ...

    def count(self) -> int:
        """Number of rows."""
        ...

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """The nearest rows to a query vector [d], best first."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


@runtime_checkable
class WordStore(Store, Protocol):
    """A store that also ranks by words, with an engine of its own."""

    def find_words(self, words: str, *, limit: int) -> list[Hit]:
        """The rows whose `text` has most of the words, best first; scores are the engine's own."""
        ...
