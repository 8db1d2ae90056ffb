"""embedder.py: the public face, with the toy model and with fakes behind the `Backend` seam."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.embedder import ChunkVectors, Embedder, TokenVectors, TorchBackend
from fivefold.errors import DimensionError, InputError, NonFiniteError, TruncationWarning, UnknownTaskError
from fivefold.packing import PackedBatch
from tests import toy


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """One toy system for the file."""
    return toy.embedder(toy.config(max_position_embeddings=128))


class CountingBackend:
    """Hidden state of a token is its id, whatever its neighbours; remembers what it was given."""

    def __init__(self, bad_id: int | None = None) -> None:
        self.tokens: list[int] = []
        self.bad_id = bad_id

    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        """[T, D] with the id in every column."""
        self.tokens.append(len(batch.input_ids))
        hidden = batch.input_ids.float()[:, None].expand(-1, 32).clone()
        if self.bad_id is not None:
            hidden[batch.input_ids == self.bad_id] = float("nan")
        return hidden


def test_a_string_gives_one_vector(embedder: Embedder) -> None:
    """1-D for a string, 2-D for a list, (0, d) for an empty one."""
    assert embedder.encode("fox").shape == (32,)
    assert embedder.encode(["fox"]).shape == (1, 32)
    assert embedder.encode([]).shape == (0, 32)
    assert embedder.encode([], truncate_dim=8, precision="ubinary").shape == (0, 1)
    assert embedder.encode(x for x in ("a", "b")).shape == (2, 32)


def test_vectors_are_unit_length_float32(embedder: Embedder) -> None:
    """At every cut; `normalize=False` leaves the mean as it is."""
    for dims in (1, 8, 31, 32):
        vectors = embedder.encode(toy.TEXTS, task="separation", truncate_dim=dims)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    raw = embedder.encode(toy.TEXTS, normalize=False)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).max() > 0.1


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [("int8", np.int8, 32), ("uint8", np.uint8, 32), ("binary", np.int8, 4), ("ubinary", np.uint8, 4)],
)
def test_precisions(embedder: Embedder, precision: str, dtype: type, width: int) -> None:
    """Type and width of the quantised forms."""
    vectors = embedder.encode(toy.TEXTS, precision=precision)
    assert vectors.dtype == dtype
    assert vectors.shape == (len(toy.TEXTS), width)


def test_query_and_document_are_the_two_retrieval_tasks(embedder: Embedder) -> None:
    """Adapter and prompt included, and they differ."""
    query, document = embedder.encode_query("fox"), embedder.encode_document("fox")
    np.testing.assert_array_equal(query, embedder.encode("fox", task="retrieval.query"))
    np.testing.assert_array_equal(document, embedder.encode("fox", task="retrieval.passage"))
    assert query @ document < 0.999


def test_what_the_model_is(embedder: Embedder) -> None:
    """The descriptive properties."""
    assert embedder.dimensions == 32
    assert embedder.tasks == ("retrieval.query", "retrieval.passage", "separation", "classification", "text-matching")
    assert embedder.model_name == "toy"
    assert embedder.config is embedder.tokenizer.config


def test_one_warning_counts_what_was_cut(embedder: Embedder) -> None:
    """Texts and tokens, once for the whole call."""
    with pytest.warns(TruncationWarning, match=r"2 texts were cut to 10 tokens, losing \d+ tokens") as seen:
        embedder.encode([*toy.TEXTS[:2], "fox"], max_length=10)
    assert len(seen) == 1
    with pytest.raises(InputError, match="the limit is 10"):
        embedder.encode(toy.TEXTS[:2], max_length=10, truncate=False)


def test_the_budget_bounds_every_forward() -> None:
    """No pack is larger than max_batch_tokens unless one text alone is."""
    backend = CountingBackend()
    Embedder(backend, toy.tokenizer(toy.config(max_position_embeddings=128)), max_batch_tokens=60).encode(toy.TEXTS)
    assert max(backend.tokens[1:]) <= 60
    assert len(backend.tokens) > 3


def test_order_is_restored_from_sorted_packs() -> None:
    """With the id as hidden state, each row tells which text it came from."""
    embedder = Embedder(CountingBackend(), toy.tokenizer(toy.config(max_position_embeddings=128)), max_batch_tokens=50)
    vectors = embedder.encode(toy.TEXTS, normalize=False)
    expected = [np.mean(toy.rust_tokenizer().encode(text).ids) for text in toy.TEXTS]
    np.testing.assert_allclose(vectors[:, 0], expected, rtol=1e-5)


def test_nan_names_the_texts() -> None:
    """Only the text that holds the poisoned token is named, by its place in the input."""
    bad = toy.rust_tokenizer().token_to_id("z")
    embedder = Embedder(CountingBackend(bad), toy.tokenizer(toy.config(max_position_embeddings=128)))
    texts = ["fox", "dog", "z", "fox"]
    with pytest.raises(NonFiniteError, match="for text 2;"):
        embedder.encode(texts)


def test_damaged_weights_are_told_not_returned() -> None:
    """One NaN in one matrix of a real model."""
    encoder = toy.encoder()
    encoder.get_parameter("layers.1.mlp.fc1.weight")[3, 3] = float("nan")
    embedder = Embedder(TorchBackend(encoder, torch.device("cpu")), toy.tokenizer())
    with pytest.raises(NonFiniteError, match="for text 0, 1; .* the weights are damaged"):
        embedder.encode(["fox", "dog"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "retrieval"}, UnknownTaskError, "unknown task 'retrieval'"),
        ({"task": ["separation"]}, InputError, "2 texts but 1 tasks"),
        ({"task": ["separation", "x"]}, UnknownTaskError, "unknown task 'x'"),
        ({"task": ["separation", ["x"]]}, InputError, "must be a name or None, got list"),
        ({"truncate_dim": 33}, DimensionError, "from 1 to 32"),
        ({"truncate_dim": 0}, DimensionError, "from 1 to 32"),
        ({"precision": "int4"}, InputError, "unknown precision"),
        ({"max_length": 1000}, InputError, "from 1 to the model's 128"),
        ({"max_length": 4, "task": "retrieval.query"}, InputError, "leaves no room"),
    ],
)
def test_bad_arguments(embedder: Embedder, arguments: dict[str, object], error: type[Exception], message: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(error, match=message):
        embedder.encode(["a", "b"], **arguments)  # type: ignore[arg-type]


@given(
    st.lists(st.text(st.characters(), max_size=40), max_size=4),
    st.sampled_from([None, "retrieval.query", "separation"]),
)
@settings(max_examples=40)
def test_any_strings_give_finite_unit_vectors(embedder: Embedder, texts: list[str], task: str | None) -> None:
    """Empty, blank, NUL, lone surrogates, controls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        vectors = embedder.encode(texts, task=task)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@given(st.recursive(st.none() | st.integers() | st.floats() | st.binary(), st.lists, max_leaves=3))
@settings(max_examples=40)
def test_anything_else_is_a_clear_error(embedder: Embedder, value: object) -> None:
    """Never a crash in the depths: an InputError, or an empty array for an empty list."""
    if value == []:
        assert embedder.encode(value).shape == (0, 32)  # type: ignore[arg-type]
    else:
        with pytest.raises(InputError, match=r"must be a string"):
            embedder.encode(value)  # type: ignore[arg-type]


def test_a_megabyte_without_spaces(embedder: Embedder) -> None:
    """Cut with a warning, finite, in reasonable time."""
    with pytest.warns(TruncationWarning, match="1 text was cut"):
        vector = embedder.encode("x" * 1_000_000)
    assert np.isfinite(vector).all()


def test_many_threads_with_different_tasks(embedder: Embedder) -> None:
    """No thread sees another's task."""
    tasks = [None, *embedder.tasks] * 8
    expected = {task: embedder.encode(toy.TEXTS[:3], task=task) for task in set(tasks)}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda task: embedder.encode(toy.TEXTS[:3], task=task), tasks))
    for task, vectors in zip(tasks, found, strict=True):
        np.testing.assert_allclose(vectors, expected[task], atol=1e-6)


def test_token_vectors(embedder: Embedder) -> None:
    """Their mean is the embedding; offsets say which characters each stands for."""
    text = toy.TEXTS[0]
    one = embedder.encode_tokens(text, task="classification", normalize=False)
    assert isinstance(one, TokenVectors)
    assert one.vectors.shape == (len(one.token_ids), 32)
    np.testing.assert_allclose(
        one.vectors.mean(0), embedder.encode(text, task="classification", normalize=False), atol=1e-5
    )
    assert one.offsets[0].tolist() == [-1, -1]
    many = embedder.encode_tokens([text, "fox"], task="classification", normalize=False)
    assert isinstance(many, list)
    np.testing.assert_allclose(many[0].vectors, one.vectors, atol=1e-5)
    assert embedder.encode_tokens([]) == []


def test_chunks_come_with_their_texts(embedder: Embedder) -> None:
    """By texts, by spans and by size; vectors, spans and texts agree."""
    document = "The quick brown fox. The lazy dog."
    by_text = embedder.encode_chunks(document, chunks=["The quick brown fox.", "The lazy dog."])
    by_span = embedder.encode_chunks(document, spans=[(0, 20), (21, 34)])
    assert isinstance(by_text, ChunkVectors)
    assert by_text.texts == by_span.texts == ["The quick brown fox.", "The lazy dog."]
    assert by_text.spans.tolist() == [[0, 20], [21, 34]]
    np.testing.assert_array_equal(by_text.vectors, by_span.vectors)
    sized = embedder.encode_chunks(document, chunk_tokens=12)
    assert all(document[a:b] == text for (a, b), text in zip(sized.spans, sized.texts, strict=True))
    assert len(sized) == len(sized.texts) == len(sized.vectors) > 1


def test_chunks_of_an_empty_document(embedder: Embedder) -> None:
    """Nothing to cut gives nothing, in the right shape."""
    empty = embedder.encode_chunks("", chunk_tokens=8)
    assert empty.vectors.shape == (0, 32)
    assert empty.spans.shape == (0, 2)
    assert empty.texts == []


@pytest.mark.parametrize("how", [{}, {"chunks": ["a"], "chunk_tokens": 5}])
def test_exactly_one_way_to_chunk(embedder: Embedder, how: dict[str, object]) -> None:
    """None or two ways are an error, as is a list of documents."""
    with pytest.raises(InputError, match="exactly one"):
        embedder.encode_chunks("a b", **how)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one string"):
        embedder.encode_chunks(["a b"], chunk_tokens=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"device": "toaster"}, "unknown device"), ({"dtype": "int3"}, "float32, bfloat16, float16")],
)
def test_load_refuses_early(arguments: dict[str, str], message: str) -> None:
    """Before any file is read."""
    with pytest.raises(InputError, match=message):
        Embedder.load("nowhere", **arguments)  # type: ignore[arg-type]


def test_a_model_without_tasks() -> None:
    """JinaBERT: texts and late chunks as ever, but nothing that belongs to v3's adapters."""
    embedder = toy.embedder(toy.jinabert_config(max_position_embeddings=128))
    together = embedder.encode(toy.TEXTS)
    np.testing.assert_allclose(together, np.stack([embedder.encode(text) for text in toy.TEXTS]), atol=2e-5)
    whole = embedder.encode_chunks(toy.TEXTS[0], spans=[(0, len(toy.TEXTS[0]))], task=None)
    np.testing.assert_allclose(whole.vectors[0], together[0], atol=2e-5)
    with pytest.raises(UnknownTaskError, match="this checkpoint has no adapters"):
        embedder.encode_query("a text")
