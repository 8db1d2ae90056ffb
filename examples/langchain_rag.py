"""LangChain over fivefold: in this process, or through a server.

    python examples/langchain_rag.py                         the model in this process
    python examples/langchain_rag.py http://127.0.0.1:8080   `fivefold serve`, by LangChain's own OpenAI class

Needs: pip install langchain-core, and langchain-openai for the second.
"""

from __future__ import annotations

import sys

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from fivefold import Embedder

TEXTS = [
    "Pinguine leben fast nur auf der Südhalbkugel.",
    "Le café se boit chaud ou glacé.",
    "Гора Эверест — самая высокая вершина мира.",
]
QUESTION = "Where do penguins live?"


class FivefoldEmbeddings(Embeddings):
    """Queries with the query adapter, texts with the passage adapter."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """With the passage adapter."""
        return self.embedder.encode_document(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """With the query adapter."""
        return self.embedder.encode_query(text).tolist()


class ServerEmbeddings(Embeddings):
    """The server's two tasks through LangChain's OpenAI class, which by itself embeds both sides alike."""

    def __init__(self, url: str) -> None:
        from langchain_openai import OpenAIEmbeddings

        self.passages, self.queries = (
            OpenAIEmbeddings(
                base_url=url + "/v1",
                api_key="any",
                model="v3-nano",
                check_embedding_ctx_length=False,
                model_kwargs={"extra_body": {"task": task}},
            )
            for task in ("retrieval.passage", "retrieval.query")
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """With the passage adapter."""
        return self.passages.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """With the query adapter."""
        return self.queries.embed_documents([text])[0]


embeddings = ServerEmbeddings(sys.argv[1]) if len(sys.argv) > 1 else FivefoldEmbeddings(Embedder.load())
store = InMemoryVectorStore(embeddings)
store.add_texts(TEXTS)
for document, score in store.similarity_search_with_score(QUESTION, k=2):
    print(f"{score:.3f}  {document.page_content}")
