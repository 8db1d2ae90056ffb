"""LanceDB: a table in a folder or in an object store, inside this process. Search compares with every row, exactly, unless
the table's owner has made an index. Ranks by words too (BM25).

The card is in the metadata of the table's schema.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS

from fivefold.errors import StoreError
from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.stores.card import KEY, Card, Carded, absent, check_float32, stranger
from fivefold.jobs.stores.columns import RESERVED, check_columns
from fivefold.jobs.stores.url import Url
from fivefold.vectors import FloatArray

ROWS_A_COMMIT = 4096


def open_url(url: Url) -> LanceStore:
    """The table that a URL names last."""
    folder, table = url.folder_and_name()
    return LanceStore(folder, table)


class LanceStore(Carded):
    """One table. Several processes may write at once: LanceDB settles who is first."""

    def __init__(self, folder: str, table: str) -> None:
        self._where = f"the LanceDB table {table} in {folder}"
        self._database = lancedb.connect(folder)
        self._name = table
        self._table: Any = None
        self._written = False

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """An empty table."""
        check_columns(schema)
        check_float32(origin, "LanceDB")
        vector = pa.field("vector", pa.list_(pa.float32(), origin.dimensions))
        fields = [pa.field("id", pa.string()), vector, *schema]
        whole = pa.schema(fields, metadata={KEY: Card(origin, schema).to_json()})
        self._table = self._told(lambda: self._database.create_table(self._name, schema=whole))

    def upsert(self, rows: Rows) -> None:
        """One commit for every few thousand rows."""
        table = self._opened()
        for part in rows.slices(ROWS_A_COMMIT):
            flat = pa.array(np.ascontiguousarray(part.vectors, dtype=np.float32).reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, part.vectors.shape[1])
            names = ["id", "vector", *part.columns.column_names]
            data = pa.table([pa.array(part.ids, pa.string()), vectors, *part.columns.columns], names=names)
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            self._told(partial(merge.execute, data))
            self._written = True

    def delete(self, document: str) -> None:
        """By a filter."""
        where, table = "document = '" + document.replace("'", "''") + "'", self._opened()
        self._told(lambda: table.delete(where))
        self._written = True

    def count(self) -> int:
        """Number of rows."""
        return int(self._told(self._opened().count_rows))

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """By cosine."""
        found = self._opened().search(query, vector_column_name="vector").distance_type("cosine").limit(limit)
        return [self._hit(row, 1 - row["_distance"]) for row in self._told(found.to_list)]

    def find_words(self, words: str, *, limit: int) -> list[Hit]:
        """By BM25 over `text`; the first call makes the index of words, later rows are read beside it."""
        table = self._opened()
        if "text" not in table.schema.names:
            return []
        if not any(index.columns == ["text"] for index in table.list_indices()):
            self._told(lambda: table.create_index("text", config=FTS()))
            table.wait_for_index(["text_idx"], timedelta(hours=1))
        found = table.search(words, query_type="fts", fts_columns="text").limit(limit)
        return [self._hit(row, row["_score"]) for row in self._told(found.to_list)]

    def close(self) -> None:
        """Merge the small pieces that commits leave."""
        if self._written:
            self._told(self._table.optimize)
            self._written = False

    def _opened(self) -> Any:
        """The table; one that others have changed meanwhile is read anew."""
        if self._table is None:
            if self._name not in self._names():
                raise absent(self._where)
            self._table = self._told(lambda: self._database.open_table(self._name))
        self._told(self._table.checkout_latest)
        return self._table

    def _names(self) -> set[str]:
        names: set[str] = set()
        token = None
        while True:
            page = self._told(partial(self._database.list_tables, page_token=token))
            names.update(page.tables)
            token = page.page_token
            if not token:
                return names

    def card(self) -> Card | None:
        """In the schema's metadata."""
        if self._table is None and self._name not in self._names():
            return None
        told = (self._opened().schema.metadata or {}).get(KEY.encode())
        if told is None:
            raise stranger(self._where)
        return Card.from_json(told.decode("utf-8"), self._where)

    def _hit(self, row: dict[str, Any], score: float) -> Hit:
        names = [name for name in self._table.schema.names if name not in RESERVED]
        return Hit(row["id"], float(score), {name: row[name] for name in names})

    def _told(self, action: Any) -> Any:
        """What LanceDB answers; its errors, which are of many kinds, in our words."""
        try:
            return action()
        except (ValueError, RuntimeError, OSError, pa.ArrowException) as error:
            raise StoreError(f"{self._where}: {' '.join(str(error).split())[:300]}") from error
