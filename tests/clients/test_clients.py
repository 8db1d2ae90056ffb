"""Clients that people have, unchanged, against a real server. Each is skipped where it is not installed.

`make test-clients` installs them; the other tests need none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fivefold import Embedder
from tests.clients import calls
from tests.clients.calls import KEY, MAX_TOKENS, TEXTS, Call, NodeError, node

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]  # the clients' warnings are not ours

CHUNKS = ["Berlin is the capital of Germany.", "It lies on the Spree.", "Die Stadt ist groß."]
# What is wrong with a call, and what of the server's message its caller must see.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "other"}, "model 'other' is not served here"),
    "key": ({"key": "wrong"}, "not one of this server's"),
    "long": ({"texts": ["short", "word " * 900]}, f"input 1 has 9.. tokens, the limit is {MAX_TOKENS}"),
}
OPENAI = {"model": "NotFoundError", "key": "AuthenticationError", "long": "BadRequestError"}
HUB = {"key": "HfHubHTTPError", "long": "BadRequestError"}


def always(error: str, *faults: str) -> dict[str, str]:
    """The same class of error for each fault."""
    return dict.fromkeys(faults or FAULTS, error)


@dataclass(frozen=True)
class Client:
    """A client, the task and dimensions that it asks for, and what it raises.

    TEI's requests name no model. `mute`: the client raises, and keeps the server's message to itself.
    """

    run: Callable[[Call], Any]
    task: str | None
    dimensions: int | None
    errors: dict[str, str]
    mute: bool = False
    late: bool = False

    def __str__(self) -> str:
        return self.run.__name__


CLIENTS = (
    Client(calls.openai, "separation", 64, OPENAI),
    Client(calls.openai_async, None, None, OPENAI),
    Client(calls.langchain_openai, "retrieval.passage", None, OPENAI),
    Client(calls.langchain_jina, None, None, always("RuntimeError")),
    Client(calls.langchain_huggingface, "retrieval.passage", None, HUB),
    Client(calls.llama_jina, "retrieval.passage", 64, always("RuntimeError"), late=True),
    Client(calls.llama_jina_async, "classification", None, always("ClientResponseError"), mute=True),
    Client(calls.llama_openai, "classification", 64, OPENAI),
    Client(calls.llama_tei, None, None, always("ValidationError", "key", "long"), mute=True),
    Client(calls.haystack_documents, "retrieval.passage", 64, always("RuntimeError"), late=True),
    Client(calls.haystack_text, "retrieval.query", None, always("RuntimeError", "model", "key")),
    Client(calls.chroma, "text-matching", 64, always("RuntimeError"), late=True),
    Client(calls.pymilvus, "retrieval.query", None, always("RuntimeError"), late=True),
    Client(calls.litellm_jina, "retrieval.query", 64, OPENAI),
    Client(calls.litellm_openai, "classification", None, OPENAI),
    Client(calls.huggingface_hub, "retrieval.query", 64, HUB),
    Client(calls.infinity, None, None, always("UnexpectedStatus")),
    Client(node("openai"), "separation", 64, OPENAI),
    Client(node("jina-ai-provider"), "retrieval.passage", 64, always("AI_APICallError"), late=True),
    Client(node("@ai-sdk/openai"), None, 64, always("AI_APICallError")),
    Client(
        node("@huggingface/inference"), "classification", None, always("ProviderApiError", "key", "long"), mute=True
    ),
    Client(node("@langchain/community"), "retrieval.passage", None, always("Error")),
    Client(node("@langchain/openai"), None, None, OPENAI),
    Client(node("@chroma-core/jina"), "text-matching", 64, always("Error"), mute=True, late=True),
    Client(node("@llamaindex/jinaai"), "retrieval.query", 64, always("Error"), late=True),
)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a, dtype=np.float32), np.asarray(b), atol=1e-5)


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_vectors_are_those_of_the_embedder(url: str, embedder: Embedder, client: Client) -> None:
    close(client.run(Call(url)), embedder.encode(TEXTS, task=client.task, truncate_dim=client.dimensions))


@pytest.mark.parametrize("client", [client for client in CLIENTS if client.late], ids=str)
def test_late_chunking(url: str, embedder: Embedder, client: Client) -> None:
    found = embedder.encode_chunks(
        " ".join(CHUNKS), chunks=CHUNKS, task=client.task, truncate_dim=client.dimensions
    ).vectors
    close(client.run(Call(url, texts=CHUNKS, late=True)), found)


@pytest.mark.parametrize(
    ("client", "fault"), [(c, fault) for c in CLIENTS for fault in c.errors], ids=lambda value: str(value)
)
def test_errors_are_the_clients_own_with_our_message(url: str, client: Client, fault: str) -> None:
    wrong, message = FAULTS[fault]
    with pytest.raises(Exception) as raised:
        client.run(Call(url, **wrong))
    kind, told = type(raised.value).__name__, str(raised.value)
    if isinstance(raised.value, NodeError):
        kind, _, told = told.partition(": ")
    assert kind == client.errors[fault]
    assert client.mute or raised.match(message)


def test_openai_models_and_request_id(url: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0)
    assert client.models.list().data[0].id == "v3-nano" == client.models.retrieve("v3-nano").id
    found = client.embeddings.create(model="jina-embeddings-v3", input="a", encoding_format="base64")
    assert isinstance(found.data[0].embedding, str)  # asked for it in so many words, one gets it
    assert found.usage.total_tokens > 0 and found._request_id


def test_no_key(url: str) -> None:
    with pytest.raises(Exception, match="send the header 'Authorization: Bearer KEY'"):
        calls.llama_jina(Call(url, key=""))


def test_huggingface_hub_truncates(url: str, embedder: Embedder) -> None:
    hub = pytest.importorskip("huggingface_hub")
    long = "a long story " * 900
    found = hub.InferenceClient(url, token=KEY).feature_extraction(long, truncate=True, truncation_direction="Right")
    close(found, embedder.encode([long], max_length=MAX_TOKENS))


@pytest.mark.parametrize("encoding", ["binary", "ubinary"])
def test_llama_index_unpacks_bits(url: str, embedder: Embedder, encoding: str) -> None:
    jina = pytest.importorskip("llama_index.embeddings.jinaai")
    client = jina.JinaEmbedding(api_key=KEY, model="v3-nano", encoding_documents=encoding)
    client._api.api_url = url + "/v1/embeddings"
    np.testing.assert_array_equal(client.get_text_embedding_batch(TEXTS), np.asarray(embedder.encode(TEXTS)) > 0)


def test_infinity_models_and_health(url: str) -> None:
    infinity = pytest.importorskip("infinity_client")
    from infinity_client.api.default import health, models

    with infinity.AuthenticatedClient(base_url=url, token=KEY) as client:
        assert models.sync(client=client).data[0].id == "v3-nano"
        assert health.sync(client=client) is not None
