"""A URL for each kind of engine. Those of packages that are not installed are skipped by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.stores import servers
from tests.jobs.stores.pinecone_contract import KEY, Pinecone, serving
from tests.jobs.stores.things import DIMENSIONS

IN_FILES = {
    "lancedb": ("lancedb", "lancedb://{folder}/db/things"),
    "parquet": ("pyarrow", "parquet://{folder}/things"),
    "usearch": ("usearch", "usearch://{folder}/things"),
    "qdrant-files": ("qdrant_client", "qdrant://{folder}/qdrant/things"),
    "milvus-file": ("milvus_lite", "milvus://{folder}/milvus.db/things"),
    "chroma-files": ("chromadb", "chroma://{folder}/chroma/things"),
}
"""By name, what must be installed and the URL."""
SERVERS = {"chroma-server": "chroma_server", "milvus-server": "milvus_server", "postgresql": "postgresql_server"}
CORE = ("lancedb", "parquet")
ENGINES = [
    pytest.param(name, marks=() if name in CORE else pytest.mark.stores)
    for name in (*IN_FILES, *SERVERS, "pinecone-contract", "qdrant-server")
]


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of an empty collection."""
    name: str = request.param
    if name in IN_FILES:
        package, url = IN_FILES[name]
        pytest.importorskip(package)
        yield url.format(folder=tmp_path)
    elif name in SERVERS:
        server: servers.Server = request.getfixturevalue(SERVERS[name])
        yield server.url.replace("things", f"things_{os.path.basename(tmp_path).replace('-', '_')[-40:]}")
        if name == "chroma-server":
            servers.collect_sockets()
    elif name == "pinecone-contract":
        pytest.importorskip("pinecone")
        with serving(Pinecone(DIMENSIONS)) as host:
            yield f"pinecone://:{KEY}@things/space?host={host}"
    else:  # no package brings Qdrant's server: name one that is running, as host:port
        if "FIVEFOLD_TEST_QDRANT" not in os.environ:
            pytest.skip("FIVEFOLD_TEST_QDRANT names no running server")
        yield f"qdrant://{os.environ['FIVEFOLD_TEST_QDRANT']}/{os.path.basename(tmp_path)}"


@pytest.fixture(scope="session")
def chroma_server() -> Iterator[servers.Server]:
    server = servers.chroma()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[servers.Server]:
    server = servers.milvus()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[servers.Server]:
    server = servers.postgresql()
    yield server
    server.remove()
