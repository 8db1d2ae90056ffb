"""Milvus: a collection of a server, or of a file of Milvus Lite that one process has open. Ranks by words too (BM25).

The card is in the collection's properties. A column `text` becomes a field of its own with Milvus's BM25 function; the other
columns are dynamic fields.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import grpc
import pyarrow as pa
from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.client.types import Status
from pymilvus.exceptions import MilvusException

from fivefold.errors import InputError
from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.stores.card import KEY, Card, Carded, check_float32, stranger
from fivefold.jobs.stores.columns import check_columns, from_plain, to_plain
from fivefold.jobs.stores.patience import PATIENCE_SECONDS, Patience
from fivefold.jobs.stores.url import Url
from fivefold.vectors import FloatArray

PORT = 19530
ROWS_A_REQUEST = 512
LONGEST_TEXT = 65535
"""Bytes of one text, or of an id, that Milvus takes."""
CONNECT_SECONDS = 10
WORDS = "words"
"""The field that Milvus fills from `text` for BM25."""


def open_url(url: Url) -> MilvusStore:
    """The collection that a URL names last."""
    address, name = url.folder_and_name() if url.host is None else (url.server(PORT), url.name())
    return MilvusStore(address, url.secret or "", name, where=str(url))


def _passing(error: BaseException) -> bool:
    """No connection. (What comes over one is tried again by the client itself.)"""
    return isinstance(error, MilvusException) and error.code == Status.CONNECT_FAILED


class MilvusStore(Carded):
    """One collection, read after every write (consistency level Strong)."""

    def __init__(self, address: str, token: str, name: str, *, where: str) -> None:
        self._name, self._where = name, where
        self._patience = Patience(f"the collection {where}", (MilvusException, grpc.RpcError), _passing)
        self._client = self._patience.call(partial(MilvusClient, address, token=token, timeout=CONNECT_SECONDS))
        self._card_read: Card | None = None

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """An empty collection, loaded."""
        check_columns(schema)
        if WORDS in schema.names:
            raise InputError(f"the column {WORDS!r} is Milvus's own here; rename it")
        check_float32(origin, "Milvus")
        fields = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
        fields.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LONGEST_TEXT)
        fields.add_field("vector", DataType.FLOAT_VECTOR, dim=origin.dimensions)
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        if "text" in schema.names:
            fields.add_field("text", DataType.VARCHAR, max_length=LONGEST_TEXT, enable_analyzer=True)
            fields.add_field(WORDS, DataType.SPARSE_FLOAT_VECTOR)
            fields.add_function(
                Function(WORDS, FunctionType.BM25, input_field_names=["text"], output_field_names=[WORDS])
            )
            indexes.add_index(WORDS, index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        self._call(
            self._client.create_collection,
            schema=fields,
            index_params=indexes,
            consistency_level="Strong",
            properties={KEY: Card(origin, schema).to_json()},
        )

    def upsert(self, rows: Rows) -> None:
        """In requests of some hundred rows. Milvus's texts are never null: those become empty."""
        self.made()
        for part in rows.slices(ROWS_A_REQUEST):
            plain = to_plain(part.columns)
            data = [
                {"id": name, "vector": vector, **record, **({"text": record["text"] or ""} if "text" in record else {})}
                for name, vector, record in zip(part.ids, part.vectors, plain, strict=True)
            ]
            self._call(self._client.upsert, data=data)

    def delete(self, document: str) -> None:
        """By a filter."""
        self.made()
        self._call(self._client.delete, filter=f"document == {json.dumps(document, ensure_ascii=False)}")

    def count(self) -> int:
        """Number of rows, exactly."""
        self.made()
        return int(self._call(self._client.query, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """By cosine, through Milvus's index."""
        return self._found(query.tolist(), "vector", limit)

    def find_words(self, words: str, *, limit: int) -> list[Hit]:
        """By BM25 over `text`."""
        return self._found(words, WORDS, limit) if "text" in self.made().schema.names else []

    def close(self) -> None:
        """Let go of the connection, or of the file."""
        self._client.close()

    def _found(self, query: object, field: str, limit: int) -> list[Hit]:
        schema = self.made().schema
        (found,) = self._call(
            self._client.search, data=[query], anns_field=field, limit=limit, output_fields=list(schema.names) or ["id"]
        )
        # Milvus Lite gives BM25 as a negative distance, the server as the score it is.
        scores = [abs(row["distance"]) if field == WORDS else row["distance"] for row in found]
        return [
            Hit(row["id"], float(score), from_plain(row["entity"], schema))
            for row, score in zip(found, scores, strict=True)
        ]

    def _call(self, function: Any, **arguments: Any) -> Any:
        """One call about this collection; the client repeats it for a while by itself."""
        return self._patience.call(partial(function, self._name, timeout=PATIENCE_SECONDS, **arguments))

    def card(self) -> Card | None:
        """In the collection's properties."""
        if self._card_read is None:
            if not self._call(self._client.has_collection):
                return None
            told = self._call(self._client.describe_collection)["properties"].get(KEY)
            if told is None:
                raise stranger(self._where)
            self._card_read = Card.from_json(told, self._where)
            self._call(self._client.load_collection)  # a server of Milvus Lite that was restarted has it not
        return self._card_read
