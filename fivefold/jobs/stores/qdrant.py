"""Qdrant: a collection of a server, or of files that one process has open (for trying out: search there is exact and slow).

The card is in the collection's metadata (server 1.16 or newer). Points have UUIDs, so a row's id is a UUID made from it, and
the payload has the id itself. With `?first=binary` a new collection keeps signs in memory for a first pass, and the server
scores the candidates by the full vectors.
"""

from __future__ import annotations

import uuid
from functools import partial

import pyarrow as pa
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from fivefold.errors import InputError, StoreError
from fivefold.jobs.store import Hit, Origin, Rows
from fivefold.jobs.stores.card import KEY, Card, Carded, check_float32, stranger
from fivefold.jobs.stores.columns import check_columns, from_plain, to_plain
from fivefold.jobs.stores.patience import Patience
from fivefold.jobs.stores.url import Url
from fivefold.vectors import FloatArray

PORT = 6333
ROWS_A_REQUEST = 256
NAMESPACE = uuid.UUID("8d7b51a4-9a0e-5b0c-9d5f-7a1d3c0c5e11")
SECONDS = 60
BREADTH = 128
"""Least number of candidates that the server's index keeps while it searches; more is more exact."""
OVERSAMPLING = 4.0
"""Candidates of a first pass by signs, as a multiple of those wanted."""


def open_url(url: Url) -> QdrantStore:
    """The collection that a URL names last."""
    first = url.first_pass()
    if isinstance(first, int):
        raise InputError(f"{url}: Qdrant's first pass is binary, not a number of dimensions")
    if url.host is None:
        folder, name = url.folder_and_name()
        try:
            client = QdrantClient(path=folder)
        except RuntimeError as error:
            raise StoreError(
                f"the folder {folder} is open in another process; Qdrant's server takes several"
            ) from error
        return QdrantStore(client, name, where=str(url))
    client = QdrantClient(url=url.server(PORT), api_key=url.secret, timeout=SECONDS, check_compatibility=False)
    return QdrantStore(client, url.name(), where=str(url), binary=first is not None)


def _passing(error: BaseException) -> bool:
    """No answer, too many requests, or the server's own trouble."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 429 or (error.status_code or 0) >= 500
    return isinstance(error, ResponseHandlingException)


class QdrantStore(Carded):
    """One collection."""

    def __init__(self, client: QdrantClient, name: str, *, where: str, binary: bool = False) -> None:
        self._client, self._name, self._binary, self._where = client, name, binary, where
        failures = (UnexpectedResponse, ResponseHandlingException, ValueError)
        self._patience = Patience(f"the collection {where}", failures, _passing)
        self._card_read: Card | None = None

    def create(self, origin: Origin, schema: pa.Schema) -> None:
        """An empty collection."""
        check_columns(schema)
        check_float32(origin, "Qdrant", ", and see ?first=")
        signs = models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        self._patience.call(
            lambda: self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(
                    size=origin.dimensions, distance=models.Distance.COSINE, on_disk=self._binary or None
                ),
                quantization_config=signs if self._binary else None,
                metadata={KEY: Card(origin, schema).to_json()},
            )
        )
        if "document" in schema.names and not self._local:
            keyword = models.PayloadSchemaType.KEYWORD
            self._patience.call(lambda: self._client.create_payload_index(self._name, "document", keyword))

    def upsert(self, rows: Rows) -> None:
        """In requests of some hundred points, each waited for."""
        self.made()
        for part in rows.slices(ROWS_A_REQUEST):
            ids = [str(uuid.uuid5(NAMESPACE, name)) for name in part.ids]
            payloads = [{"id": name, **record} for name, record in zip(part.ids, to_plain(part.columns), strict=True)]
            batch = models.Batch(ids=ids, vectors=part.vectors.tolist(), payloads=payloads)
            self._patience.call(partial(self._client.upsert, self._name, batch, wait=True))

    def delete(self, document: str) -> None:
        """By a filter."""
        these = models.FieldCondition(key="document", match=models.MatchValue(value=document))
        chosen = models.FilterSelector(filter=models.Filter(must=[these]))
        self._patience.call(lambda: self._client.delete(self._name, chosen, wait=True))

    def count(self) -> int:
        """Number of rows, exactly."""
        self.made()
        return int(self._patience.call(lambda: self._client.count(self._name, exact=True)).count)

    def search(self, query: FloatArray, *, limit: int) -> list[Hit]:
        """By cosine, through the server's index."""
        schema = self.made().schema
        signs = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        breadth = max(BREADTH, 2 * limit)
        how = None if self._local else models.SearchParams(hnsw_ef=breadth, quantization=signs)
        found = self._patience.call(
            lambda: self._client.query_points(self._name, query.tolist(), limit=limit, search_params=how)
        )
        return [
            Hit(payload["id"], point.score, from_plain(payload, schema))
            for point in found.points
            if (payload := point.payload) is not None
        ]

    def close(self) -> None:
        """Let go of the connection, or of the files."""
        self._client.close()

    @property
    def _local(self) -> bool:
        return bool(self._client.init_options.get("path"))

    def card(self) -> Card | None:
        """In the collection's metadata."""
        if self._card_read is None:
            if not self._patience.call(lambda: self._client.collection_exists(self._name)):
                return None
            told = (self._patience.call(lambda: self._client.get_collection(self._name)).config.metadata or {}).get(KEY)
            if told is None:
                raise stranger(self._where)
            self._card_read = Card.from_json(told, self._where)
        return self._card_read
