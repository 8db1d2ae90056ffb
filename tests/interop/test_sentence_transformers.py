"""sentence-transformers on our encoder: the vectors are `Embedder`'s, loading, training and saving the library's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses

from fivefold import Embedder, InputError, UnknownTaskError
from fivefold.checkpoint import convert, read, write
from fivefold.interop.sentence_transformers import SentenceTransformer
from tests import toy
from tests.interop.folders import write_hf

TEXTS = [text[:60] for text in toy.TEXTS[:6]]
TASKS = toy.config().lora_adaptations
LAYOUTS = ("hf", "jina", "fivefold", "transformers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same random model in every layout."""
    root = tmp_path_factory.mktemp("st")
    hf = write_hf(root / "hf", toy.config(max_position_embeddings=128))
    for layout in LAYOUTS[1:]:
        convert(hf, root / layout, layout=layout)
    return {layout: root / layout for layout in LAYOUTS}


@pytest.fixture
def model(folders: dict[str, Path]) -> SentenceTransformer:
    return SentenceTransformer(folders["hf"], device="cpu")


@pytest.fixture(scope="module")
def embedder(folders: dict[str, Path]) -> Embedder:
    return Embedder.load(folders["hf"], device="cpu")


def near(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5)


# ---- vectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [None, *TASKS])
def test_vectors_are_the_embedders(model: SentenceTransformer, embedder: Embedder, task: str | None) -> None:
    expected = embedder.encode(TEXTS, task=task)
    near(model.encode(TEXTS, task=task, batch_size=4), expected)
    near(model.encode(TEXTS[0], task=task), expected[0])
    for dims in (8, 17):
        near(model.encode(TEXTS, task=task, truncate_dim=dims), embedder.encode(TEXTS, task=task, truncate_dim=dims))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(folders: dict[str, Path], layout: str, embedder: Embedder) -> None:
    model = SentenceTransformer(str(folders[layout]), device="cpu", truncate_dim=8)
    near(model.encode(TEXTS, task="separation"), embedder.encode(TEXTS, task="separation", truncate_dim=8))


def test_queries_and_documents(model: SentenceTransformer, embedder: Embedder) -> None:
    near(model.encode_query(TEXTS, truncate_dim=16), embedder.encode_query(TEXTS, truncate_dim=16))
    near(model.encode_document(TEXTS), embedder.encode_document(TEXTS))


def test_a_prompt_is_never_said_twice(model: SentenceTransformer, embedder: Embedder) -> None:
    task = "retrieval.query"
    expected = embedder.encode(TEXTS, task=task)
    near(model.encode(TEXTS, task=task, prompt_name=task), expected)
    near(model.encode(TEXTS, task=task, prompt=embedder.config.prompt(task)), expected)
    near(model.encode_query(TEXTS, prompt_name=task), expected)
    bare = model.encode(TEXTS, task=task, prompt="")
    assert np.abs(bare - expected).max() > 1e-2
    near(model.encode([embedder.config.prompt(task) + text for text in TEXTS], task=task, prompt=""), expected)


def test_the_library_sees_what_it_needs(model: SentenceTransformer) -> None:
    assert model.get_embedding_dimension() == 32 and model.max_seq_length == 128
    assert model.prompts == {task: toy.config().prompt(task) for task in TASKS}
    assert model.similarity(model.encode(TEXTS), model.encode(TEXTS)).shape == (6, 6)
    model.max_seq_length = 12
    assert model.preprocess(TEXTS, task="retrieval.query")["input_ids"].shape == (6, 12)
    tokens = model.encode(TEXTS[:2], output_value="token_embeddings")
    assert [len(rows) for rows in tokens] == [12, 12]


def test_default_task(folders: dict[str, Path], embedder: Embedder) -> None:
    model = SentenceTransformer(folders["jina"], device="cpu", model_kwargs={"default_task": "retrieval.passage"})
    near(model.encode(TEXTS), embedder.encode_document(TEXTS))
    model[0].default_task = "classification"
    near(model.encode(TEXTS), embedder.encode(TEXTS, task="classification"))
    near(model.encode_query(TEXTS), embedder.encode_query(TEXTS))
    with pytest.raises(UnknownTaskError, match="unknown task 'sts'"):
        model[0].default_task = "sts"
    with pytest.raises(UnknownTaskError, match="unknown task 'sts'"):
        model.encode(TEXTS, task="sts")


def test_features_that_someone_else_made(model: SentenceTransformer, embedder: Embedder) -> None:
    features = model.preprocess(TEXTS)
    mixed = torch.tensor([-1, 0, 1, 2, 3, 4])
    found = model({**features, "task_ids": mixed})["sentence_embedding"]
    near(found[0].detach(), embedder.encode(TEXTS[0]))
    near(found[5].detach(), embedder.encode(TEXTS[5], task="text-matching"))
    del features["task_ids"]
    near(
        model(dict(features), task="separation")["sentence_embedding"].detach(),
        embedder.encode(TEXTS, task="separation"),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"model_kwargs": {"attn_implementation": "eager"}},
        {"processor_kwargs": {"model_max_length": 9}},
        {"config_kwargs": {"truncate_dim": 8}},
        {"backend": "onnx"},
        {"model_kwargs": {"dtype": "int8"}},
    ],
)
def test_options_that_do_not_exist(folders: dict[str, Path], options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="has no option|unknown dtype"):
        SentenceTransformer(folders["hf"], device="cpu", **options)


def test_jinabert(tmp_path: Path) -> None:
    """jina-embeddings-v2 has no tasks; all of it trains, and what is saved loads here and in `Embedder`."""
    made = toy.encoder(toy.jinabert_config(max_position_embeddings=128))
    write(tmp_path / "v2", made.config, made.state_dict(), layout="jinabert")
    toy.rust_tokenizer().save(str(tmp_path / "v2" / "tokenizer.json"))
    model = SentenceTransformer(tmp_path / "v2", device="cpu")
    near(model.encode(TEXTS), Embedder.load(tmp_path / "v2", device="cpu").encode(TEXTS))
    train(model, tmp_path / "run", losses.MultipleNegativesRankingLoss(model), steps=2)
    model.save(str(tmp_path / "saved"))
    near(SentenceTransformer(tmp_path / "saved", device="cpu").encode(TEXTS), model.encode(TEXTS))
    near(Embedder.load(tmp_path / "saved", device="cpu").encode(TEXTS), model.encode(TEXTS))
    near(model.encode_query(TEXTS), model.encode(TEXTS))
    with pytest.raises(UnknownTaskError):
        model.encode(TEXTS, task="separation")


# ---- training and saving --------------------------------------------------------------------------------------------

PAIRS = {"anchor": TEXTS[:4] * 2, "positive": [text[10:50] for text in TEXTS[:4]] * 2}


def train(model: SentenceTransformer, folder: Path, loss: Any, *, steps: int = 100, **options: Any) -> list[float]:
    """Losses of a few steps of the library's trainer."""
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"save_strategy": "no", **options},
    )
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(PAIRS), loss=loss)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_one_adapter_trains_and_nothing_else_changes(folders: dict[str, Path], tmp_path: Path) -> None:
    """Then it is saved and loaded, here and by `Embedder`, and saved over itself."""
    model = SentenceTransformer(folders["hf"], device="cpu", model_kwargs={"default_task": "text-matching"})
    before = {name: tensor.clone() for name, tensor in model[0].encoder.state_dict().items()}
    found = train(model, tmp_path / "run", losses.MultipleNegativesRankingLoss(model))
    assert np.mean(found[-4:]) < 0.8 * np.mean(found[:4])
    changed = set()
    for name, tensor in model[0].encoder.state_dict().items():
        others = [0, 1, 2, 3] if "lora_" in name else slice(None)
        assert torch.equal(tensor[others], before[name][others]), name
        changed |= {name} if not torch.equal(tensor, before[name]) else set()
    assert len(changed) > 8
    expected = model.encode(TEXTS)
    for _ in range(2):
        model.save(str(tmp_path / "saved"))
        model = SentenceTransformer(tmp_path / "saved", device="cpu")
        assert model[0].default_task == "text-matching"
        np.testing.assert_array_equal(model.encode(TEXTS), expected)
    near(Embedder.load(tmp_path / "saved", device="cpu").encode(TEXTS, task="text-matching"), expected)
    assert all(torch.equal(read(tmp_path / "saved")[1][name], before[name]) for name in set(before) - changed)


def test_everything_trains_when_asked(folders: dict[str, Path], tmp_path: Path) -> None:
    options = {"default_task": "separation", "lora_main_params_trainable": True}
    model = SentenceTransformer(folders["fivefold"], device="cpu", model_kwargs=options)
    before = model[0].encoder.layers[0].mlp.fc1.weight.clone()
    loss = losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), [32, 8])
    train(model, tmp_path, loss, steps=2)
    assert not torch.equal(model[0].encoder.layers[0].mlp.fc1.weight, before)
    body = write_hf(tmp_path / "body", toy.config(lora_adaptations=(), task_instructions={}))
    bare = SentenceTransformer(body, device="cpu")
    assert all(parameter.requires_grad for parameter in bare.parameters())


def test_columns_with_tasks_of_their_own_and_checkpoints(folders: dict[str, Path], tmp_path: Path) -> None:
    """Anchors through the query adapter, positives through the passage one; the trainer loads its checkpoint again."""
    model = SentenceTransformer(folders["hf"], device="cpu")
    before = {name: t.clone() for name, t in model[0].encoder.state_dict().items() if name.endswith("fc1.lora_B")}
    loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    options = {"save_strategy": "steps", "save_steps": 2}
    train(model, tmp_path, loss, steps=2, router_mapping={"anchor": "query", "positive": "document"}, **options)
    for name, old in before.items():
        rows = (model[0].encoder.state_dict()[name] != old).flatten(1).any(1)
        assert rows.tolist() == [True, True, False, False, False]
    again = SentenceTransformer(tmp_path / "checkpoint-2", device="cpu")
    np.testing.assert_array_equal(again.encode_query(TEXTS), model.encode_query(TEXTS))
