"""Haystack over fivefold: in this process, or through a server.

    python examples/haystack_rag.py                         the model in this process
    python examples/haystack_rag.py http://127.0.0.1:8080   `fivefold serve`, by Haystack's own Jina components

Needs: pip install haystack-ai, and jina-haystack for the second.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from haystack import Document, Pipeline, component
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from fivefold import Embedder

TEXTS = [
    "Pinguine leben fast nur auf der Südhalbkugel.",
    "Le café se boit chaud ou glacé.",
    "Гора Эверест — самая высокая вершина мира.",
]
QUESTION = "Where do penguins live?"


@component
class FivefoldDocumentEmbedder:
    """Documents with the passage adapter."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """The documents, each with its vector."""
        vectors = self.embedder.encode_document([document.content or "" for document in documents]).tolist()
        found = [replace(document, embedding=vector) for document, vector in zip(documents, vectors, strict=True)]
        return {"documents": found}


@component
class FivefoldTextEmbedder:
    """A query with the query adapter."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """The query's vector."""
        return {"embedding": self.embedder.encode_query(text).tolist()}


def in_process() -> tuple[Any, Any]:
    """Components for documents and queries, around one model."""
    embedder = Embedder.load()
    return FivefoldDocumentEmbedder(embedder), FivefoldTextEmbedder(embedder)


def through_a_server(url: str) -> tuple[Any, Any]:
    """The adapter is the server's `task`."""
    from haystack.utils import Secret
    from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder, JinaTextEmbedder

    settings = {"api_key": Secret.from_token("any"), "model": "v3-nano", "base_url": url + "/v1/embeddings"}
    return (
        JinaDocumentEmbedder(task="retrieval.passage", progress_bar=False, **settings),
        JinaTextEmbedder(task="retrieval.query", **settings),
    )


documents, query = through_a_server(sys.argv[1]) if len(sys.argv) > 1 else in_process()
store = InMemoryDocumentStore(embedding_similarity_function="cosine")
store.write_documents(documents.run([Document(content=text) for text in TEXTS])["documents"])

pipeline = Pipeline()
pipeline.add_component("query", query)
pipeline.add_component("retriever", InMemoryEmbeddingRetriever(document_store=store, top_k=2))
pipeline.connect("query.embedding", "retriever.query_embedding")
for document in pipeline.run({"query": {"text": QUESTION}})["retriever"]["documents"]:
    print(f"{document.score:.3f}  {document.content}")
