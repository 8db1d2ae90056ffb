"""PostgreSQL with pgvector: a table. Search is exact until the table's owner makes an index, with one of `?first=` below or by
hand. Ranks by words too (PostgreSQL's full text search, which is not BM25).

The card is the table's comment. Columns have types of PostgreSQL where it has the same, and are `jsonb` otherwise. With
`?first=binary` or `?first=N` there is an index (HNSW) over signs or over the first N dimensions, and what it finds is
ordered by the full vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

import numpy as np
import psycopg
import pyarrow as pa
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from fivefold.errors import InputError
from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.stores.card import Card, Carded, check_float32, stranger
from fivefold.jobs.stores.columns import check_columns, from_plain, to_plain
from fivefold.jobs.stores.patience import Patience
from fivefold.jobs.stores.url import Url
from fivefold.vectors import FloatArray

ROWS_A_COMMIT = 1024
CANDIDATES = 20
"""Rows that a first pass hands on, as a multiple of those wanted."""
MOST_CANDIDATES = 1000
"""What `hnsw.ef_search` can be at most."""
INDEXED_CHARACTERS = 200_000
"""Of a text: PostgreSQL refuses to index the words of much longer ones."""
WORDS = f"to_tsvector('simple', left(text, {INDEXED_CHARACTERS}))"
OWN_OPTIONS = ("table", "first")
TYPES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_uint64, "numeric"),
    (pa.types.is_integer, "bigint"),
    (pa.types.is_floating, "double precision"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_date, "date"),
    (lambda kind: pa.types.is_timestamp(kind) and kind.unit != "ns" and kind.tz is None, "timestamp"),
    (lambda kind: pa.types.is_timestamp(kind) and kind.unit != "ns" and kind.tz is not None, "timestamptz"),
)
"""Of a column in PostgreSQL, by Arrow type; of any other, jsonb with its plain form."""

Result = TypeVar("Result")


def open_url(url: Url) -> PostgresStore:
    """The table in `?table=`; other options are libpq's."""
    table = url.options.get("table")
    if not table:
        raise InputError(f"{url} must name a table: ...?table=name")
    parts = urlsplit(url.text)
    query = urlencode({name: value for name, value in url.options.items() if name not in OWN_OPTIONS})
    return PostgresStore(urlunsplit(parts._replace(query=query)), table, where=str(url), first=url.first_pass())


def _passing(error: BaseException) -> bool:
    """No connection, or two transactions in each other's way."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not isinstance(
        error, psycopg.errors.InvalidPassword | psycopg.errors.InvalidCatalogName | psycopg.errors.DiskFull
    )


class PostgresStore(Carded):
    """One table."""

    def __init__(self, address: str, table: str, *, where: str, first: str | int | None = None) -> None:
        self._address, self._table, self._first = address, sql.Identifier(*table.split(".")), first
        self._where, self._name = where, table
        self._patience = Patience(f"the table {table} of {where}", (psycopg.Error,), _passing)
        self._connection: psycopg.Connection[Any] | None = None
        self._card_read: Card | None = None

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """An empty table and its indexes, in one transaction."""
        check_columns(schema)
        check_float32(origin, "pgvector", ", and see ?first=")
        self._do(lambda connection: self._create(connection, origin, schema))

    def upsert(self, rows: Rows) -> None:
        """One transaction for about a thousand rows."""
        schema = self.made().schema
        names = ["id", "vector", *schema.names]
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
            self._table,
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join([sql.Placeholder()] * len(names)),
            sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in names[1:]),
        )
        for part in rows.slices(ROWS_A_COMMIT):
            cells = _cells(part.columns.select(schema.names))
            records = [(name, vector, *row) for name, vector, row in zip(part.ids, part.vectors, cells, strict=True)]
            self._do(partial(_insert, insert, records))

    def delete(self, document: str) -> None:
        """By a condition."""
        self.made()
        delete = sql.SQL("DELETE FROM {} WHERE document = %s").format(self._table)
        self._do(lambda connection: connection.execute(delete, [document]))

    def count(self) -> int:
        """Number of rows, exactly."""
        self.made()
        count = sql.SQL("SELECT count(*) FROM {}").format(self._table)
        return int(self._do(lambda connection: connection.execute(count).fetchall())[0][0])

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """By cosine."""
        origin = self.made().origin
        vector = np.asarray(query, dtype=np.float32)
        order = sql.SQL("vector <=> %(vector)s")
        candidates = min(CANDIDATES * limit, MOST_CANDIDATES)
        source: sql.Composable = self._table
        if self._first is not None:
            source = sql.SQL("(SELECT * FROM {} ORDER BY {} LIMIT {}) AS candidates").format(
                self._table, self._first_order(origin), sql.Literal(candidates)
            )
        select = sql.SQL("SELECT *, 1 - ({}) AS fivefold_score FROM {} ORDER BY {} LIMIT {}").format(
            order, source, order, sql.Literal(limit)
        )
        breadth = sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(candidates))
        return self._hits(
            lambda connection: (connection.execute(breadth), connection.execute(select, {"vector": vector}))[1]
        )

    def find_words(self, words: str, *, limit: int) -> list[Hit]:
        """By `ts_rank_cd` over `text`, of the rows that have any of the words."""
        if "text" not in self.made().schema.names:
            return []
        any_word = sql.SQL("replace(plainto_tsquery('simple', %(words)s)::text, '&', '|')::tsquery")
        select = sql.SQL(
            "SELECT *, ts_rank_cd({0}, {1}) AS fivefold_score FROM {2} WHERE {0} @@ {1} "
            "ORDER BY fivefold_score DESC, id LIMIT {3}"
        ).format(sql.SQL(WORDS), any_word, self._table, sql.Literal(limit))
        return self._hits(lambda connection: connection.execute(select, {"words": words}))

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()

    def _create(self, connection: psycopg.Connection[Any], origin: Origin, schema: pa.Schema) -> None:
        columns = [
            sql.SQL("id text PRIMARY KEY"),
            sql.SQL("vector vector({}) NOT NULL").format(sql.Literal(origin.dimensions)),
            *(sql.SQL("{} {}").format(sql.Identifier(f.name), sql.SQL(_type(f.type))) for f in schema),
        ]
        card = sql.Literal(Card(origin, schema).to_json())
        connection.execute(sql.SQL("CREATE TABLE {} ({})").format(self._table, sql.SQL(", ").join(columns)))
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(self._table, card))
        if "document" in schema.names:
            connection.execute(sql.SQL("CREATE INDEX ON {} (document)").format(self._table))
        if "text" in schema.names:
            connection.execute(sql.SQL("CREATE INDEX ON {} USING gin ({})").format(self._table, sql.SQL(WORDS)))
        if self._first is not None:
            kind = "bit_hamming_ops" if self._first == "binary" else "vector_cosine_ops"
            expression = self._first_pass(origin, sql.SQL("vector"))
            index = sql.SQL("CREATE INDEX ON {} USING hnsw (({}) {})")
            connection.execute(index.format(self._table, expression, sql.SQL(kind)))

    def _first_pass(self, origin: Origin, vector: sql.Composable) -> sql.Composable:
        """What a first pass compares of a vector."""
        if self._first == "binary":
            return sql.SQL("binary_quantize({})::bit({})").format(vector, sql.Literal(origin.dimensions))
        count = sql.Literal(min(int(self._first or 0), origin.dimensions))
        return sql.SQL("subvector({0}, 1, {1})::vector({1})").format(vector, count)

    def _first_order(self, origin: Origin) -> sql.Composable:
        near = sql.SQL("<~>") if self._first == "binary" else sql.SQL("<=>")
        mine, theirs = sql.SQL("vector"), sql.SQL("%(vector)s")
        return sql.SQL(" ").join([self._first_pass(origin, mine), near, self._first_pass(origin, theirs)])

    def _hits(self, select: Callable[[psycopg.Connection[Any]], psycopg.Cursor[Any]]) -> list[Hit]:
        schema = self.made().schema

        def records(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
            cursor = select(connection)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        return [Hit(row["id"], float(row["fivefold_score"]), from_plain(row, schema)) for row in self._do(records)]

    def _do(self, work: Callable[[psycopg.Connection[Any]], Result]) -> Result:
        """Some work in one transaction; after a lost connection, all of it again on another."""

        def attempt() -> Result:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._address, autocommit=True)
                self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                register_vector(self._connection)
            with self._connection.transaction():
                return work(self._connection)

        return self._patience.call(attempt)

    def card(self) -> Card | None:
        """In the table's comment."""
        if self._card_read is None:
            name = sql.Literal(self._table.as_string(None))
            ask = sql.SQL("SELECT to_regclass({0}), obj_description(to_regclass({0}), 'pg_class')").format(name)
            found, told = self._do(lambda connection: connection.execute(ask).fetchall())[0]
            if found is None:
                return None
            if told is None or not told.startswith("{"):
                raise stranger(self._where)
            self._card_read = Card.from_json(told, self._where)
        return self._card_read


def _insert(insert: sql.Composed, records: list[tuple[object, ...]], connection: psycopg.Connection[Any]) -> None:
    connection.cursor().executemany(insert, records)


def _type(kind: pa.DataType) -> str:
    return next((name for holds, name in TYPES if holds(kind)), "jsonb")


def _cells(table: pa.Table) -> list[tuple[object, ...]]:
    """Values of each row in the form of their columns."""
    plain = to_plain(table)
    for name in [field.name for field in table.schema if _type(field.type) == "jsonb"]:
        for record in plain:
            record[name] = None if record[name] is None else Jsonb(record[name])
    return [tuple(record.values()) for record in plain]
