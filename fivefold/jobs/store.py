"""Where vectors go and where they are looked for: the one seam between the job, the search and every vector store.

Shapes: N rows, d dimensions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

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


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to be stored: an id each, unique; vectors [N, d] as `Embedder` gives them; and what goes along: `text`, for a chunk
    `document`, `start` and `stop`, and the user's own columns."""

    ids: list[str]
    vectors: Array
    columns: pa.Table


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

    def count(self) -> int:
        """Number of rows."""
        ...

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """The nearest rows to a query vector [d], best first."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...
