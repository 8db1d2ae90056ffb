"""The part of Pinecone's REST API (2026-07) that the store speaks, as its reference and its client's models have it, written
down in `pinecone_contract.json`, by a small HTTP server. Nobody has held it against the service itself.

Each request is held against the record: path, the names and types of its fields. Answers have the recorded form. What is stored
is kept in memory, as the service would, with a metric of cosine; requests over 2 MB or 1000 vectors get the service's 400.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

RECORD = json.loads((Path(__file__).parent / "pinecone_contract.json").read_text())
KEY = "pcsk_test"
Spaces = dict[str, dict[str, dict[str, Any]]]


class Pinecone:
    """An index in memory; `failures` are statuses that the next requests get."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.spaces: Spaces = {}
        self.failures: list[int] = []
        self.requests: list[str] = []

    def upsert(self, body: dict[str, Any]) -> dict[str, Any]:
        space = self.spaces.setdefault(body.get("namespace", ""), {})
        for vector in body["vectors"]:
            assert vector["id"].isascii() and len(vector["id"]) <= 512
            assert len(vector["values"]) == self.dimension and any(vector["values"])
            assert len(json.dumps(vector["metadata"])) <= 40_960
            for value in vector["metadata"].values():
                assert isinstance(value, str | bool | int | float), value
            # numbers are floats there
            plain = {k: float(v) if type(v) is int else v for k, v in vector["metadata"].items()}
            space[vector["id"]] = {**vector, "metadata": plain}
        return {"upsertedCount": len(body["vectors"])}

    def query(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = list(self.spaces.get(body["namespace"], {}).values())
        vectors = np.array([row["values"] for row in rows]).reshape(len(rows), self.dimension)
        asked = np.array(body["vector"])
        scores = vectors @ asked / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked))
        best = np.argsort(-scores)[: body["topK"]]
        matches = [{"id": rows[i]["id"], "score": scores[i], "metadata": rows[i]["metadata"]} for i in best]
        return {"matches": matches, "namespace": body["namespace"], "usage": {"readUnits": 1}}

    def delete(self, body: dict[str, Any]) -> dict[str, Any]:
        ((name, condition),) = body["filter"].items()
        space = self.spaces.get(body["namespace"], {})
        for key in [k for k, row in space.items() if row["metadata"].get(name) == condition["$eq"]]:
            del space[key]
        return {}

    def stats(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "namespaces": {name: {"vectorCount": len(rows)} for name, rows in self.spaces.items()},
            "dimension": self.dimension,
            "indexFullness": 0.0,
            "totalVectorCount": sum(map(len, self.spaces.values())),
            "metric": "cosine",
            "vectorType": "dense",
        }

    def fetch(self, query: dict[str, list[str]]) -> dict[str, Any]:
        (name,) = query["namespace"]
        space = self.spaces.get(name, {})
        found = {key: space[key] for key in query["ids"] if key in space}
        return {"vectors": found, "namespace": name, "usage": {"readUnits": 1}}


@contextmanager
def serving(index: Pinecone) -> Iterator[str]:
    """The index's host."""
    ROUTES = {
        "/vectors/upsert": index.upsert,
        "/query": index.query,
        "/vectors/delete": index.delete,
        "/describe_index_stats": index.stats,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            index.requests.append(parts.path)
            if parts.path.startswith("/indexes/"):
                name = parts.path.removeprefix("/indexes/")
                host = f"http://127.0.0.1:{self.server.server_address[1]}"
                self.answer(200, {**RECORD["describe_index"]["answer"], "name": name, "host": host})
            else:
                assert parts.path == "/vectors/fetch", parts.path
                self.answer(200, index.fetch(parse_qs(parts.query)))

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            index.requests.append(self.path)
            assert self.headers["Api-Key"] == KEY
            if index.failures:
                self.answer(index.failures.pop(0), RECORD["failure"]["answer"])
                return
            body = json.loads(data)
            recorded = RECORD[self.path]["request"]
            assert set(body) <= set(recorded), (self.path, set(body) - set(recorded))
            assert all(type(body[name]) is type(recorded[name]) for name in body), self.path
            if len(data) > 2 * 1024**2 or len(body.get("vectors", [])) > 1000:
                self.answer(400, RECORD["failure"]["answer"])
                return
            self.answer(200, ROUTES[self.path](body))

        def answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
