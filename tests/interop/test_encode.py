"""`encode` and the adapters: the numbers are `Embedder`'s, the arguments and errors the published code's."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fivefold import DimensionError, Embedder, MissingFileError, UnknownTaskError
from fivefold.config import TASKS
from fivefold.interop.transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model
from fivefold.layouts import folder_name
from fivefold.packing import pack
from tests import toy
from tests.interop.folders import encoder, write_hf

TEXTS = toy.TEXTS[:5]
NAMES = [task.name for task in TASKS]
IDS = torch.tensor([[0, 17, 33, 5, 2], [0, 9, 200, 41, 2]])
several = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # PEFT says so for every second adapter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf(tmp_path_factory.mktemp("hf") / "m")


@pytest.fixture
def model(folder: Path, caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.ERROR, "transformers")
    return JinaEmbeddingsV3Model.from_pretrained(folder)


def hidden(model: Any) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = model(IDS).last_hidden_state
    return states


def expected(task: str | None) -> torch.Tensor:
    """Both rows by the packed encoder with its own adapter."""
    core = encoder()
    task_id = core.config.task_id(task)
    return core(pack([toy.sequence(row, task_id) for row in IDS.tolist()])).view(2, 5, -1)


# ---- adapters -------------------------------------------------------------------------------------------------------


@several
def test_adapters_are_natives_and_equal_our_banks(model: Any, folder: Path) -> None:
    for task in NAMES:
        name = folder_name(task)
        model.load_adapter(str(folder), adapter_name=name, adapter_kwargs={"subfolder": name})
    for task in [*NAMES, NAMES[0]]:
        model.set_adapter(folder_name(task))
        torch.testing.assert_close(hidden(model), expected(task), atol=2e-5, rtol=0)
    model.disable_adapters()
    torch.testing.assert_close(hidden(model), expected(None), atol=2e-5, rtol=0)


def test_a_fresh_peft_adapter_trains_and_the_body_does_not(model: Any) -> None:
    from peft import LoraConfig

    body = {key: p.detach().clone() for key, p in model.named_parameters()}
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "o_proj", "fc1", "word_embeddings"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(3):
        loss = model.train()(IDS).last_hidden_state[:, 0].sub(1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = {key.replace(".base_layer", ""): p for key, p in model.named_parameters() if "lora" not in key}
    assert after.keys() == body.keys() and all(torch.equal(after[key], body[key]) for key in body)


# ---- encode ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::fivefold.TruncationWarning")
@pytest.mark.parametrize("task", [None, *NAMES])
def test_vectors_are_the_embedders(model: Any, folder: Path, task: str | None) -> None:
    embedder = Embedder.load(folder, device="cpu")
    for options in ({}, {"truncate_dim": 8}, {"max_length": 60}):
        found = model.encode(TEXTS, task=task, batch_size=2, **options)
        np.testing.assert_allclose(found, embedder.encode(TEXTS, task=task, **options), atol=1e-5)


@several
def test_the_model_is_as_it_was(model: Any, folder: Path) -> None:
    """Training mode, active adapter, gradients, disabled adapters: whatever a call needs, it puts back."""
    model.train().encode(TEXTS, task=NAMES[0])
    assert model.training
    torch.testing.assert_close(hidden(model.eval()), expected(None), atol=2e-5, rtol=0)
    model.load_adapter(str(folder), adapter_name="mine", adapter_kwargs={"subfolder": "separation"})
    model.set_adapter("mine")
    trained = [p.requires_grad for p in model.parameters()]
    plain = model.encode(TEXTS)
    assert model.active_adapters() == ["mine"] and [p.requires_grad for p in model.parameters()] == trained
    torch.testing.assert_close(hidden(model), expected("separation"), atol=2e-5, rtol=0)
    model.disable_adapters()
    assert not np.allclose(model.encode(TEXTS, task=NAMES[0]), plain, atol=1e-2)
    torch.testing.assert_close(hidden(model), expected(None), atol=2e-5, rtol=0)


def test_forms_of_the_result(model: Any) -> None:
    array = model.encode(TEXTS)
    assert array.dtype == np.float32 and array.shape == (5, 32)
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-6)
    assert model.encode(TEXTS[0]).shape == (32,) and model.encode([]).shape == (0,)
    tensor, listed = model.encode(TEXTS, convert_to_tensor=True), model.encode(TEXTS, convert_to_numpy=False)
    assert torch.equal(tensor, torch.stack(listed)) and np.array_equal(tensor.numpy(), array)
    torch.testing.assert_close(model.encode(TEXTS[0], convert_to_numpy=False), tensor[0])
    longer = model.encode(TEXTS, normalize_embeddings=False, device="cpu", truncate_dim=16)
    unit = longer / np.linalg.norm(longer, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, model.encode(TEXTS, truncate_dim=16), atol=1e-6)
    assert not np.allclose(np.linalg.norm(longer, axis=1), 1)


def test_a_tokenizer_without_a_limit(folder: Path, tmp_path: Path) -> None:
    """Its own "no limit" is a number that tokenizers cannot take."""
    shutil.copytree(folder, tmp_path / "m")
    path = tmp_path / "m" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["model_max_length"]
    path.write_text(json.dumps(settings))
    found = JinaEmbeddingsV3Model.from_pretrained(tmp_path / "m").encode(TEXTS)
    np.testing.assert_allclose(found, Embedder.load(folder).encode(TEXTS), atol=2e-5)


def test_refusals(model: Any) -> None:
    with pytest.raises(UnknownTaskError, match=r"Unsupported task 'sts'\. Supported tasks are: retrieval\.query, "):
        model.encode(TEXTS, task="sts")
    with pytest.raises(DimensionError, match=r"`truncate_dim` value of 9 is not supported.*\[8, 16, 32\]"):
        model.encode(TEXTS, truncate_dim=9)
    with pytest.raises(NotImplementedError, match="token_embeddings"):
        model.encode(TEXTS, output_value="token_embeddings")
    with pytest.raises(MissingFileError, match="no tokenizer; use from_pretrained"):
        JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(vocab_size=9, hidden_size=4, num_hidden_layers=0)).encode(TEXTS)


def test_a_config_without_our_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The release's tasks and prompts stand in for those that native transformers does not write; sizes do not."""
    folder = write_hf(tmp_path / "m")
    wanted = JinaEmbeddingsV3Model.from_pretrained(folder).encode(TEXTS, task=NAMES[0])
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    for key in ("lora_adaptations", "task_instructions", "matryoshka_dimensions"):
        del raw[key]
    path.write_text(json.dumps(raw))
    bare = JinaEmbeddingsV3Model.from_pretrained(folder)
    np.testing.assert_array_equal(bare.encode(TEXTS, task=NAMES[0], truncate_dim=8), wanted)
    assert "Matryoshka embeddings are not supported" in caplog.text
