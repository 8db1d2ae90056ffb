"""Vector stores: one file each, all behind `fivefold.jobs.store.Store`, opened by URL."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from fivefold.errors import InputError, MissingExtraError
from fivefold.jobs.store import Store
from fivefold.jobs.stores.url import Url


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of store: its file here, what its URLs look like, the options they may have (None: they are the
    client's), and the extra that installs its client."""

    module: str
    example: str
    options: frozenset[str] | None = frozenset()
    extra: str = ""


KINDS = {
    "lancedb": Kind("lance", "lancedb:///folder/table"),
    "parquet": Kind("parquet", "parquet:///folder"),
    "usearch": Kind("nearest", "usearch:///folder", frozenset({"first"}), "usearch"),
    "qdrant": Kind("qdrant", "qdrant://host:6333/name or qdrant:///folder/name", frozenset({"first", "tls"}), "qdrant"),
    "milvus": Kind("milvus", "milvus://host:19530/name or milvus:///file.db/name", frozenset({"tls"}), "milvus"),
    "postgresql": Kind("postgresql", "postgresql://user@host/database?table=name", None, "postgresql"),
    "chroma": Kind("chroma", "chroma://host:8000/name or chroma:///folder/name", frozenset({"tls"}), "chroma"),
    "pinecone": Kind("pinecone", "pinecone://index/namespace", frozenset({"host"}), "pinecone"),
}
"""By the scheme of the URL."""


def open_store(url: str) -> Store:
    """The store at a URL; its collection need not exist yet.

    Raises:
        InputError: a scheme nobody knows, or a URL without what that store needs.
        MissingExtraError: the store's client is not installed.
        StoreError: the store cannot be reached.
    """
    parsed = Url.parse(url)
    kind = KINDS.get(parsed.scheme)
    if kind is None:
        raise InputError(f"{parsed} names no store we know; use " + ", ".join(k.example for k in KINDS.values()))
    unknown = set() if kind.options is None else set(parsed.options) - kind.options
    if unknown:
        has = ", ".join(sorted(kind.options or ())) or "none"
        raise InputError(f"{parsed}: unknown option {min(unknown)!r}; {parsed.scheme} has {has}")
    try:
        module = import_module(f"fivefold.jobs.stores.{kind.module}")
    except ImportError as error:
        missing = f"{parsed.scheme} needs {error.name}: pip install 'fivefold[{kind.extra}]'"
        raise MissingExtraError(missing) from None
    opened: Store = module.open_url(parsed)
    return opened
