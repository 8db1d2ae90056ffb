"""How each client is pointed at the server, and one call of it: texts in, vectors out."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

KEY = "KEY"
MAX_TOKENS = 512
"""Of one text on the server of these tests: a long one need not take long."""
TEXTS = ["a brown fox", "der Hund läuft", "el río 🌊", "", "two\nlines"]
NODE = Path(__file__).parent / "node"


@dataclass(frozen=True)
class Call:
    """What a client is asked, and where."""

    url: str
    key: str = KEY
    model: str = "v3-nano"
    texts: list[str] = field(default_factory=lambda: TEXTS)
    late: bool = False
    """Late chunking, of clients that have it."""


def openai(call: Call) -> Any:
    """Asks for base64 by itself."""
    client = pytest.importorskip("openai").OpenAI(base_url=call.url + "/v1", api_key=call.key, max_retries=0)
    found = client.embeddings.create(
        model=call.model, input=call.texts, dimensions=64, extra_body={"task": "separation"}
    )
    return [row.embedding for row in found.data]


def openai_async(call: Call) -> Any:
    openai = pytest.importorskip("openai")

    async def ask() -> Any:
        async with openai.AsyncOpenAI(base_url=call.url + "/v1", api_key=call.key, max_retries=0) as client:
            found = await client.embeddings.create(model=call.model, input=call.texts, encoding_format="float")
            return [row.embedding for row in found.data]

    return asyncio.run(ask())


def langchain_openai(call: Call) -> Any:
    client = pytest.importorskip("langchain_openai").OpenAIEmbeddings(
        base_url=call.url + "/v1",
        api_key=call.key,
        model=call.model,
        check_embedding_ctx_length=False,
        model_kwargs={"extra_body": {"task": "retrieval.passage"}},
        max_retries=0,
    )
    return client.embed_documents(call.texts)


def langchain_jina(call: Call) -> Any:
    jina = pytest.importorskip("langchain_community.embeddings.jina")
    with patch.object(jina, "JINA_API_URL", call.url + "/v1/embeddings"):
        return jina.JinaEmbeddings(jina_api_key=call.key, model_name=call.model).embed_documents(call.texts)


def langchain_huggingface(call: Call) -> Any:
    """It makes spaces of newlines."""
    endpoint = pytest.importorskip("langchain_huggingface").HuggingFaceEndpointEmbeddings(
        model_kwargs={"prompt_name": "retrieval.passage"}
    )
    endpoint.client = pytest.importorskip("huggingface_hub").InferenceClient(call.url, token=call.key)
    return endpoint.embed_documents(call.texts)


def llama_jina(call: Call) -> Any:
    jina = pytest.importorskip("llama_index.embeddings.jinaai").JinaEmbedding(
        api_key=call.key, model=call.model, task="retrieval.passage", dimensions=64, late_chunking=call.late
    )
    jina._api.api_url = call.url + "/v1/embeddings"
    return jina.get_text_embedding_batch(call.texts)


def llama_jina_async(call: Call) -> Any:
    jina = pytest.importorskip("llama_index.embeddings.jinaai").JinaEmbedding(
        api_key=call.key, model=call.model, task="classification"
    )
    jina._api.api_url = call.url + "/v1/embeddings"
    return asyncio.run(jina.aget_text_embedding_batch(call.texts))


def llama_openai(call: Call) -> Any:
    client = pytest.importorskip("llama_index.embeddings.openai").OpenAIEmbedding(
        api_base=call.url + "/v1",
        api_key=call.key,
        model_name=call.model,
        dimensions=64,
        additional_kwargs={"extra_body": {"task": "classification"}},
        max_retries=0,
    )
    return client.get_text_embedding_batch(call.texts)


def llama_tei(call: Call) -> Any:
    tei = pytest.importorskip("llama_index.embeddings.text_embeddings_inference").TextEmbeddingsInference(
        base_url=call.url, model_name=call.model, auth_token=call.key, truncate_text=False
    )
    return tei.get_text_embedding_batch(call.texts)


def haystack_documents(call: Call) -> Any:
    jina = pytest.importorskip("haystack_integrations.components.embedders.jina")
    from haystack import Document
    from haystack.utils import Secret

    client = jina.JinaDocumentEmbedder(
        api_key=Secret.from_token(call.key),
        model=call.model,
        base_url=call.url + "/v1/embeddings",
        task="retrieval.passage",
        dimensions=64,
        late_chunking=call.late,
        batch_size=4,
        progress_bar=False,
    )
    found = client.run(documents=[Document(content=text or None) for text in call.texts])
    return [document.embedding for document in found["documents"]]


def haystack_text(call: Call) -> Any:
    jina = pytest.importorskip("haystack_integrations.components.embedders.jina")
    from haystack.utils import Secret

    client = jina.JinaTextEmbedder(
        api_key=Secret.from_token(call.key),
        model=call.model,
        base_url=call.url + "/v1/embeddings",
        task="retrieval.query",
    )
    return [client.run(text=text)["embedding"] for text in call.texts]


def chroma(call: Call) -> Any:
    return chroma_function(call, task="text-matching", dimensions=64, late_chunking=call.late)(call.texts)


def chroma_function(call: Call, **options: Any) -> Any:
    functions = pytest.importorskip("chromadb.utils.embedding_functions")
    function = functions.JinaEmbeddingFunction(api_key=call.key, model_name=call.model, **options)
    function._api_url = call.url + "/v1/embeddings"
    return function


def pymilvus(call: Call) -> Any:
    """Asks for its number of dimensions with a call of its own, then always sends it."""
    jina = pytest.importorskip("pymilvus.model.dense.jinaai")
    with patch.object(jina, "API_URL", call.url + "/v1/embeddings"):
        function = jina.JinaEmbeddingFunction(call.model, call.key, late_chunking=call.late)
        assert function.dim == 384
        return function.encode_queries(call.texts)


def litellm_jina(call: Call) -> Any:
    found = pytest.importorskip("litellm").embedding(
        f"jina_ai/{call.model}",
        call.texts,
        api_base=call.url + "/v1",
        api_key=call.key,
        dimensions=64,
        task="retrieval.query",
        max_retries=0,
    )
    return [row["embedding"] for row in found.data]


def litellm_openai(call: Call) -> Any:
    found = pytest.importorskip("litellm").embedding(
        f"openai/{call.model}",
        call.texts,
        api_base=call.url + "/v1",
        api_key=call.key,
        extra_body={"task": "classification"},
        max_retries=0,
    )
    return [row["embedding"] for row in found.data]


def huggingface_hub(call: Call) -> Any:
    client = pytest.importorskip("huggingface_hub").InferenceClient(call.url, token=call.key)
    return client.feature_extraction(call.texts, prompt_name="retrieval.query", normalize=True, dimensions=64)


def infinity(call: Call) -> Any:
    """Always sends `dimensions: 0`."""
    client = pytest.importorskip("infinity_client")
    from infinity_client.api.default import embeddings
    from infinity_client.models import OpenAIEmbeddingInputText

    body = OpenAIEmbeddingInputText.from_dict({"input": call.texts, "model": call.model})
    with client.AuthenticatedClient(base_url=call.url, token=call.key, raise_on_unexpected_status=True) as signed_in:
        return [row.embedding for row in embeddings.sync(client=signed_in, body=body).data]


class NodeError(Exception):
    """What a client in Node threw: its class and message."""


def node(name: str) -> Callable[[Call], Any]:
    """A client of `clients.mjs`."""

    def run(call: Call) -> Any:
        require_node(name)
        script = ["node", str(NODE / "clients.mjs"), name]
        done = subprocess.run(script, input=json.dumps(asdict(call)), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        if "error" in told:
            raise NodeError(f"{told['error']}: {told['message']}")
        return told["vectors"]

    run.__name__ = name
    return run


def require_node(package: str) -> None:
    """Skip where Node or a package is missing."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (NODE / "node_modules" / package).is_dir():
        pytest.skip(f"npm's {package} is not installed: make test-clients, or npm install in tests/clients/node")
