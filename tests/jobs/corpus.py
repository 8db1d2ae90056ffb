"""A small corpus, the toy model behind it, and a store that may refuse: what tests of jobs stand on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fivefold.embedder import Embedder
from fivefold.errors import StoreError
from fivefold.jobs import job, sources
from fivefold.jobs.folder import Finished, Folder
from fivefold.jobs.job import Here
from fivefold.jobs.plan import Plan
from fivefold.jobs.sources import Fields
from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.work import Settings
from tests import toy

IDS = Fields(id="id")
SMALL = Settings(task="retrieval.passage", part_rows=4)


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of different lengths and scripts; the text is another one for each."""
    return [
        {"id": f"d{i}", "text": f"{i} {toy.TEXTS[i % 10][: 5 + i * 7 % 40]}", "n": i}
        for i in range(start, start + count)
    ]


def jsonl(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return str(path)


def run(
    inputs: str | list[str],
    output: Path,
    embedder: Embedder,
    *,
    fields: Fields = IDS,
    settings: Settings = SMALL,
    **options: Any,
) -> job.Summary:
    files = sources.files([inputs] if isinstance(inputs, str) else inputs, None)
    engine = options.pop("engine", None) or Here(embedder)
    return job.run(files, fields, settings, engine=engine, folder=Folder(str(output)), **options)


def written(output: Path) -> dict[str, np.ndarray]:
    """Vectors by id; every row must be there once."""
    table = pq.read_table(output)
    ids = table["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return {
        name: np.array(vector, dtype=np.float32) for name, vector in zip(ids, table["vector"].to_pylist(), strict=True)
    }


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, vector in expected.items():
        np.testing.assert_allclose(found[name], vector, atol=1e-5)


@dataclass
class Counting:
    """An engine that counts the parts it did, and may stop before one."""

    inner: Here
    stop_after: int = 10**9
    did: list[int] = field(default_factory=list)

    def origin(self, settings: Settings) -> Origin:
        return self.inner.origin(settings)

    def work(self, plan: Plan, wanted: frozenset[int], settings: Settings, folder: Folder) -> Iterator[Finished]:
        for line in self.inner.work(plan, wanted, settings, folder):
            self.did.append(line.part)
            yield line
            if len(self.did) == self.stop_after:
                raise KeyboardInterrupt


@dataclass
class MemoryStore:
    """A store that keeps rows in a dictionary and refuses after so many calls."""

    patience: int = 10**9
    made: Origin | None = None
    kept: dict[str, tuple[np.ndarray, dict[str, Any]]] = field(default_factory=dict)

    def origin(self) -> Origin | None:
        return self.made

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        self.made, self.schema = origin, schema

    def upsert(self, rows: Rows) -> None:
        self.patience -= 1
        if self.patience < 0:
            raise StoreError("the store has had enough")
        assert rows.columns.schema.names == self.schema.names
        for name, vector, columns in zip(rows.ids, rows.vectors, rows.columns.to_pylist(), strict=True):
            self.kept[name] = vector, columns

    def delete(self, document: str) -> None:
        raise NotImplementedError

    def count(self) -> int:
        return len(self.kept)

    def search(self, query: np.ndarray, *, limit: int) -> list[Hit]:
        raise NotImplementedError

    def close(self) -> None:
        pass
