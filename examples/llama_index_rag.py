"""LlamaIndex over fivefold: in this process, or through a server.

    python examples/llama_index_rag.py                         the model in this process
    python examples/llama_index_rag.py http://127.0.0.1:8080   `fivefold serve`, by LlamaIndex's own Jina class

Needs: pip install llama-index-core, and llama-index-embeddings-jinaai for the second.
"""

from __future__ import annotations

import sys

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode

from fivefold import Embedder

TEXTS = [
    "Pinguine leben fast nur auf der Südhalbkugel.",
    "Le café se boit chaud ou glacé.",
    "Гора Эверест — самая высокая вершина мира.",
]
QUESTION = "Where do penguins live?"


class FivefoldEmbedding(BaseEmbedding):
    """Queries with the query adapter, texts with the passage adapter."""

    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(model_name=embedder.model_name)
        self._embedder = embedder

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.encode_query(query).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embedder.encode_document(text).tolist()

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.encode_document(texts).tolist()


def through_a_server(url: str, task: str) -> BaseEmbedding:
    """LlamaIndex's class has one task; the index below takes one of these for each side."""
    from llama_index.embeddings.jinaai import JinaEmbedding

    embedding = JinaEmbedding(api_key="any", model="v3-nano", task=task)
    embedding._api.api_url = url + "/v1/embeddings"
    return embedding


if len(sys.argv) > 1:
    passages, queries = (through_a_server(sys.argv[1], f"retrieval.{side}") for side in ("passage", "query"))
else:
    passages = queries = FivefoldEmbedding(Embedder.load())
index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=passages)
for hit in index.as_retriever(similarity_top_k=2, embed_model=queries).retrieve(QUESTION):
    print(f"{hit.score:.3f}  {hit.text}")
