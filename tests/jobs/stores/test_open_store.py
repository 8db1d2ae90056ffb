"""URLs: what they open, and what is said of those that open nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fivefold import InputError, MissingExtraError
from fivefold.jobs.stores import KINDS, open_store
from fivefold.jobs.stores.lance import LanceStore
from fivefold.jobs.stores.parquet import ParquetStore
from fivefold.jobs.stores.url import Url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("elastic://host/name", "names no store we know; use lancedb:///folder/table, parquet:///folder"),
        ("vectors", "names no store we know"),
        ("lancedb:table", "must name a folder and, after it, a collection"),
        ("lancedb://folder/table", "an absolute path has three slashes"),
        ("parquet://", "must name a folder"),
        ("parquet:///x?first=binary", "unknown option 'first'; parquet has none"),
        ("qdrant://host:port/x", "is not a URL"),
    ],
)
def test_urls_that_open_nothing(url: str, said: str) -> None:
    with pytest.raises(InputError) as told:
        open_store(url)
    assert said in str(told.value)


@pytest.mark.parametrize("scheme", [name for name, kind in KINDS.items() if kind.extra])
def test_missing_packages_are_named_with_their_extra(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = {"qdrant": "qdrant_client", "milvus": "pymilvus", "postgresql": "psycopg", "chroma": "chromadb"}.get(
        scheme, scheme
    )
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith((f"{package}.", "fivefold.jobs.stores."))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=rf"{scheme} needs \w+.*pip install 'fivefold\[{scheme}\]'"):
        open_store(f"{scheme}://host/name" + ("?table=x" if scheme == "postgresql" else ""))


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_store("parquet:vectors"), ParquetStore)
    assert isinstance(open_store("lancedb:folder/table"), LanceStore)


def test_secrets_are_not_shown() -> None:
    for url in (
        "qdrant://:s3cret@host/x",
        "postgresql://me:s3cret@host/db?table=x",
        "postgresql:///db?password=s3cret",
    ):
        assert "s3cret" not in str(Url.parse(url)) and "***" in str(Url.parse(url))


@pytest.mark.parametrize(("asked", "means"), [("", None), ("?first=binary", "binary"), ("?first=64", 64)])
def test_the_first_pass(asked: str, means: object) -> None:
    assert Url.parse(f"usearch:///x{asked}").first_pass() == means
    with pytest.raises(InputError, match="binary or a number of dimensions"):
        Url.parse("usearch:///x?first=half").first_pass()
