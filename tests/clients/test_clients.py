"""Clients that people have, unchanged, against a real server. Each is skipped where it is not installed.

`make test-clients` installs them; the other tests need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold import Embedder
from tests.serve.process import Process

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]  # the clients' warnings are not ours
TEXTS = ["a brown fox", "der Hund", "el río"]
KEY = "sk-any"


@pytest.fixture(scope="module")
def url(tiny_folder: Path) -> Iterator[str]:
    process = Process(tiny_folder, "--api-key", KEY, "--served-model-name", "v3-nano").ready()
    yield process.url
    assert process.stop()[0] == 0


@pytest.fixture(scope="module")
def embedder(tiny_folder: Path) -> Embedder:
    return Embedder.load(tiny_folder)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a, dtype=np.float32), np.asarray(b), atol=1e-5)


def test_openai(url: str, embedder: Embedder) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0)
    assert client.models.list().data[0].id == "v3-nano" == client.models.retrieve("v3-nano").id
    found = client.embeddings.create(model="v3-nano", input=TEXTS, dimensions=8, extra_body={"task": "separation"})
    close([row.embedding for row in found.data], embedder.encode(TEXTS, task="separation", truncate_dim=8))
    floats = client.embeddings.create(model="v3-nano", input=TEXTS, encoding_format="float")
    close([row.embedding for row in floats.data], embedder.encode(TEXTS))
    assert found.usage.total_tokens > 0 and found._request_id
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="v3-nano", input="a", dimensions=10**6)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="a")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url + "/v1", api_key="wrong").embeddings.create(model="v3-nano", input="a")


def test_huggingface_hub(url: str, embedder: Embedder) -> None:
    hub = pytest.importorskip("huggingface_hub")
    client = hub.InferenceClient(url, token=KEY)
    close(client.feature_extraction(TEXTS[0]), embedder.encode(TEXTS[:1]))
    found = client.feature_extraction(TEXTS[0], prompt_name="retrieval.query", normalize=True, truncate=True)
    close(found, embedder.encode(TEXTS[:1], task="retrieval.query"))


def test_langchain_openai(url: str, embedder: Embedder) -> None:
    langchain = pytest.importorskip("langchain_openai")
    client = langchain.OpenAIEmbeddings(
        base_url=url + "/v1", api_key=KEY, model="v3-nano", check_embedding_ctx_length=False
    )
    close(client.embed_documents(TEXTS), embedder.encode(TEXTS))
    close(client.embed_query(TEXTS[0]), embedder.encode(TEXTS[0]))


def test_langchain_jina(url: str, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    jina = pytest.importorskip("langchain_community.embeddings.jina")
    monkeypatch.setattr(jina, "JINA_API_URL", url + "/v1/embeddings")
    client = jina.JinaEmbeddings(jina_api_key=KEY, model_name="v3-nano")
    close(client.embed_documents(TEXTS), embedder.encode(TEXTS))
    with pytest.raises(RuntimeError, match="is not served here"):
        jina.JinaEmbeddings(jina_api_key=KEY, model_name="jina-clip-v2").embed_query("a")


def test_haystack_jina(url: str, embedder: Embedder) -> None:
    jina = pytest.importorskip("haystack_integrations.components.embedders.jina")
    from haystack import Document
    from haystack.utils import Secret

    options = {"api_key": Secret.from_token(KEY), "model": "v3-nano", "base_url": url + "/v1/embeddings"}
    query = jina.JinaTextEmbedder(task="retrieval.query", dimensions=16, **options).run(text=TEXTS[0])
    close(query["embedding"], embedder.encode_query(TEXTS[0], truncate_dim=16))
    documents = [Document(content=text) for text in TEXTS] + [Document(content=None)]
    found = jina.JinaDocumentEmbedder(task="retrieval.passage", batch_size=2, **options).run(documents=documents)
    close([d.embedding for d in found["documents"]], embedder.encode_document([*TEXTS, ""]))
    late = jina.JinaDocumentEmbedder(task="retrieval.passage", late_chunking=True, **options)
    found = late.run(documents=[Document(content=text) for text in TEXTS])
    close([d.embedding for d in found["documents"]], embedder.encode_chunks(" ".join(TEXTS), chunks=TEXTS).vectors)


def test_infinity(url: str, embedder: Embedder) -> None:
    infinity = pytest.importorskip("infinity_client")
    from infinity_client.api.default import embeddings, health, models
    from infinity_client.models import OpenAIEmbeddingInputText

    body = OpenAIEmbeddingInputText.from_dict({"input": TEXTS, "model": "v3-nano"})
    with infinity.AuthenticatedClient(base_url=url, token=KEY) as client:
        found = embeddings.sync(client=client, body=body)
        close([row.embedding for row in found.data], embedder.encode(TEXTS))
        assert models.sync(client=client).data[0].id == "v3-nano"
        assert health.sync(client=client) is not None
