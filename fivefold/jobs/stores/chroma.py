"""Chroma: a collection of a server, or of a folder that one process has open.

The card is in the collection's metadata; a row's `text` is Chroma's document, the other columns are its metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import chromadb
import httpx
import numpy as np
import pyarrow as pa
from chromadb.errors import InternalError, NotFoundError, RateLimitError

from fivefold.errors import InputError
from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.stores.card import KEY, Card, absent, check_float32, stranger
from fivefold.jobs.stores.columns import Plain, check_columns, from_plain, to_flat
from fivefold.jobs.stores.patience import Patience
from fivefold.jobs.stores.url import Url
from fivefold.vectors import FloatArray, normalize

PORT = 8000
ROWS_A_REQUEST = 1000
INDEX = {"space": "cosine", "ef_construction": 200, "ef_search": 400, "max_neighbors": 32}
"""Of Chroma's index (HNSW); higher than its defaults are, so that recall is."""
SAME_VECTOR = 1e-6
"""Largest difference in one dimension of two vectors that are the same, for Chroma normalises them."""
MARK = "fivefold"
"""A key in every row's metadata, since Chroma takes no empty ones."""


def open_url(url: Url) -> ChromaStore:
    """The collection that a URL names last."""
    quiet = chromadb.Settings(anonymized_telemetry=False)
    if url.host is None:
        folder, name = url.folder_and_name()
        return ChromaStore(partial(chromadb.PersistentClient, folder, settings=quiet), name, where=str(url))
    key = None if url.secret is None else {"Authorization": f"Bearer {url.secret}"}
    port = url.port or PORT
    client = partial(chromadb.HttpClient, url.host, port, ssl=url.tls, headers=key, settings=quiet)
    return ChromaStore(client, url.name(), where=str(url))


def _passing(error: BaseException) -> bool:
    """No answer, too many requests, or the server's own trouble. (Chroma tells a lost connection as a ValueError.)"""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    lost = isinstance(error, ValueError) and "Could not connect" in str(error)
    return lost or isinstance(error, httpx.TransportError | InternalError | RateLimitError)


class ChromaStore:
    """One collection."""

    def __init__(self, connect: Callable[[], Any], name: str, *, where: str) -> None:
        self._name, self._where = name, where
        self._patience = Patience(f"the collection {where}", (Exception,), _passing)  # its client raises bare ones too
        self._client: Any = self._patience.call(connect)
        self._opened: tuple[Any, Card] | None = None

    def origin(self) -> Origin | None:
        """From the collection's metadata."""
        opened = self._open()
        return None if opened is None else opened[1].origin

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """An empty collection."""
        check_columns(schema)
        if MARK in schema.names:
            raise InputError(f"the column {MARK!r} is our own in Chroma; rename it")
        check_float32(origin, "Chroma")
        self._patience.call(
            lambda: self._client.create_collection(
                self._name,
                metadata={KEY: Card(origin, schema).to_json()},
                configuration={"hnsw": INDEX},
                embedding_function=None,
            )
        )

    def upsert(self, rows: Rows) -> None:
        """In requests of a thousand rows. What is there already is left alone: to replace a row takes Chroma a hundred
        times as long as to compare it."""
        collection, _ = self._made()
        for part in rows.slices(min(ROWS_A_REQUEST, self._client.get_max_batch_size())):
            records = [{MARK: 1, **record} for record in to_flat(part.columns)]
            texts = [record.pop("text", None) for record in records]
            self._patience.call(partial(_put_changed, collection, part, records, texts))

    def delete(self, document: str) -> None:
        """By a filter."""
        collection, _ = self._made()
        self._patience.call(lambda: collection.delete(where={"document": document}))

    def count(self) -> int:
        """Number of rows, exactly."""
        collection, _ = self._made()
        return int(self._patience.call(collection.count))

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """By cosine, through Chroma's index."""
        collection, card = self._made()
        found = self._patience.call(
            lambda: collection.query(
                query_embeddings=query[None], n_results=limit, include=["metadatas", "documents", "distances"]
            )
        )
        rows = zip(*(found[name][0] for name in ("ids", "distances", "metadatas", "documents")), strict=True)
        return [
            Hit(name, 1 - float(distance), from_plain({**record, "text": text}, card.schema))
            for name, distance, record, text in rows
        ]

    def close(self) -> None:
        """Let go of the connection, or of the files."""
        self._client.close()

    def _made(self) -> tuple[Any, Card]:
        opened = self._open()
        if opened is None:
            raise absent(self._where)
        return opened

    def _open(self) -> tuple[Any, Card] | None:
        """The collection and its card."""
        if self._opened is None:
            collection = self._patience.call(self._get)
            if collection is None:
                return None
            told = (collection.metadata or {}).get(KEY)
            if told is None:
                raise stranger(self._where)
            self._opened = collection, Card.from_json(told, self._where)
        return self._opened

    def _get(self) -> Any:
        try:
            return self._client.get_collection(self._name, embedding_function=None)
        except NotFoundError:
            return None


def _put_changed(collection: Any, rows: Rows, records: list[Plain], texts: list[object]) -> None:
    """One request's rows, without those that are there as they are."""
    there = collection.get(ids=rows.ids, include=["embeddings", "metadatas", "documents"])
    stored = (
        {
            name: (record, text, vector)
            for name, record, text, vector in zip(
                there["ids"], there["metadatas"], there["documents"], normalize(there["embeddings"]), strict=True
            )
        }
        if there["ids"]
        else {}
    )
    given = zip(rows.ids, records, texts, normalize(rows.vectors), strict=True)
    new = [
        row
        for row, (name, record, text, vector) in enumerate(given)
        if name not in stored
        or stored[name][:2] != (record, text)
        or np.abs(stored[name][2] - vector).max() > SAME_VECTOR
    ]
    if new:
        collection.upsert(
            ids=[rows.ids[row] for row in new],
            embeddings=rows.vectors[new],
            metadatas=[records[row] for row in new],
            documents=[texts[row] for row in new] if any(texts[row] for row in new) else None,
        )
