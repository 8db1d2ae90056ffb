"""Pinecone: a namespace of an index that its owner has made, with the model's dimensions and the metric cosine.

The card is a record of its own in the namespace `fivefold-cards`. Pinecone's ids are short and plain, so a row's is the SHA-256
of our id, which itself is in the metadata. What was written is seen by searches and counts after some seconds.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import pyarrow as pa
from pinecone import Pinecone
from pinecone.errors import (
    PineconeConnectionError,
    PineconeError,
    PineconeTimeoutError,
    RateLimitError,
    ServiceError,
)

from fivefold.errors import InputError
from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.stores.card import Card, Carded, check_float32, stranger
from fivefold.jobs.stores.columns import check_columns, from_plain, to_flat
from fivefold.jobs.stores.patience import Patience
from fivefold.jobs.stores.url import Url
from fivefold.vectors import FloatArray

ROWS_A_REQUEST = 64
"""Of 1024 dimensions, with some text each: a request may have 2 MB."""
CARDS = "fivefold-cards"
PASSING = (PineconeConnectionError, PineconeTimeoutError, RateLimitError, ServiceError)


def open_url(url: Url) -> PineconeStore:
    """The namespace that a URL's path names, in the index that stands where others have a host; the key is the client's
    PINECONE_API_KEY, or the URL's password."""
    if not url.host:
        raise InputError(f"{url} must name an index: pinecone://index/namespace")
    return PineconeStore(url.host, url.name(), key=url.secret, host=url.options.get("host", ""), where=str(url))


class PineconeStore(Carded):
    """One namespace."""

    def __init__(self, index: str, namespace: str, *, key: str | None, host: str, where: str) -> None:
        self._namespace, self._where = namespace, where
        self._patience = Patience(f"the namespace {where}", (PineconeError,), lambda error: isinstance(error, PASSING))
        with self._patience.call(partial(Pinecone, key)) as client:  # an index has connections of its own
            self._index: Any = self._patience.call(lambda: client.index(host=host) if host else client.index(index))
        self._card_read: Card | None = None

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """The card; the index must be there and fit."""
        check_columns(schema)
        check_float32(origin, "Pinecone")
        told = self._patience.call(self._index.describe_index_stats)
        if told.dimension != origin.dimensions or told.metric not in (None, "cosine"):
            raise InputError(
                f"the index of {self._where} has {told.dimension} dimensions and the metric {told.metric}, and these "
                f"vectors need {origin.dimensions} and cosine: make another index, or change --truncate-dim"
            )
        vector = [1.0] + [0.0] * (origin.dimensions - 1)
        record = {"id": _key(self._namespace), "values": vector, "metadata": {"card": Card(origin, schema).to_json()}}
        self._call(self._index.upsert, vectors=[record], namespace=CARDS, show_progress=False)

    def upsert(self, rows: Rows) -> None:
        """In requests of some dozen rows."""
        self.made()
        for part in rows.slices(ROWS_A_REQUEST):
            records = [
                {"id": _key(name), "values": vector, "metadata": {"id": name, **record}}
                for name, vector, record in zip(part.ids, part.vectors.tolist(), to_flat(part.columns), strict=True)
            ]
            self._call(self._index.upsert, vectors=records, namespace=self._namespace, show_progress=False)

    def delete(self, document: str) -> None:
        """By a filter."""
        self.made()
        self._call(self._index.delete, filter={"document": {"$eq": document}}, namespace=self._namespace)

    def count(self) -> int:
        """Number of rows, as of some seconds ago."""
        self.made()
        spaces = self._patience.call(self._index.describe_index_stats).namespaces
        return int(spaces[self._namespace].vector_count) if self._namespace in spaces else 0

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """By cosine, through Pinecone's index."""
        schema = self.made().schema
        found = self._call(
            self._index.query,
            vector=query.tolist(),
            top_k=limit,
            namespace=self._namespace,
            include_metadata=True,
        )
        return [
            Hit(str(match.metadata["id"]), float(match.score), from_plain(match.metadata, schema))
            for match in found.matches
        ]

    def close(self) -> None:
        """Let go of the connection."""
        self._index.close()

    def _call(self, function: Any, **arguments: Any) -> Any:
        return self._patience.call(partial(function, **arguments))

    def card(self) -> Card | None:
        """The card; without one, the namespace must be empty."""
        if self._card_read is None:
            key = _key(self._namespace)
            found = self._call(self._index.fetch, ids=[key], namespace=CARDS).vectors.get(key)
            if found is None:
                spaces = self._patience.call(self._index.describe_index_stats).namespaces
                if self._namespace in spaces:
                    raise stranger(self._where)
                return None
            self._card_read = Card.from_json(str(found.metadata["card"]), self._where)
        return self._card_read


def _key(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8")).hexdigest()
