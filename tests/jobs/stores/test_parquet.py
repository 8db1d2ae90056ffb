"""The Parquet folder under kills, in other readers' eyes, and with files that are not ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fivefold import InputError, StoreError
from fivefold.jobs.stores.parquet import ParquetStore
from tests.jobs.stores.things import ORIGIN, SCHEMA, id_of, rows


@pytest.fixture
def store(tmp_path: Path) -> ParquetStore:
    made = ParquetStore(tmp_path / "x")
    made.create(ORIGIN, SCHEMA)
    return made


def ids_that_others_see(store: ParquetStore) -> list[str]:
    return sorted(ds.dataset(store.folder, format="parquet").to_table(columns=["id"])["id"].to_pylist())


def test_other_readers_see_every_row_once(store: ParquetStore) -> None:
    store.upsert(rows(range(50)))
    store.upsert(rows(range(30, 80), seed=1))
    store.upsert(rows(range(30), seed=2))  # nothing is left of the first part
    assert ids_that_others_see(store) == sorted(map(id_of, range(80)))
    table = ds.dataset(store.folder, format="parquet").to_table()
    assert table.drop_columns(["id", "vector"]).schema == SCHEMA


def test_a_run_killed_between_two_files_is_settled_by_the_next(store: ParquetStore, tmp_path: Path) -> None:
    store.upsert(rows(range(50)))
    (old,) = store.folder.glob("*.parquet")
    shutil.copy(old, tmp_path / old.name)
    store.upsert(rows(range(20, 60), seed=1))
    shutil.copy(tmp_path / old.name, old)  # the new part was written, the old one not yet cut
    (store.folder / ".torn.parquet.part").write_bytes(b"PAR1")
    again = ParquetStore(store.folder)
    assert again.count() == 60
    assert ids_that_others_see(again) == sorted(map(id_of, range(60)))
    hit = again.search(rows(range(20, 21), seed=1).vectors[0], limit=1)[0]
    assert hit.id == id_of(20) and hit.score == pytest.approx(1, abs=1e-5)


def test_two_writers_see_each_other(store: ParquetStore) -> None:
    other = ParquetStore(store.folder)
    for start in range(0, 100, 20):
        (store if start % 40 else other).upsert(rows(range(start, start + 30)))
    assert store.count() == other.count() == 110
    assert ids_that_others_see(store) == sorted(map(id_of, range(110)))


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "theirs.parquet")
    with pytest.raises(InputError, match="was not made by fivefold.*Index the texts into a new collection"):
        ParquetStore(tmp_path).origin()


def test_a_damaged_card_is_told(store: ParquetStore) -> None:
    (store.folder / "_fivefold.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        store.origin()
