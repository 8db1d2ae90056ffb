"""PEFT folders: all or none, ranks and scalings of their own, PEFT's own spelling, and what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fivefold.checkpoint import load_encoder, read, write
from fivefold.errors import CheckpointError, MissingFileError, TensorError, UnknownTaskError
from fivefold.packing import pack
from tests import toy

CONFIG = toy.config()
CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A `-hf` folder with five adapters."""
    write(tmp_path / "hf", CONFIG, toy.encoder().state_dict(), layout="hf")
    return tmp_path / "hf"


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(path: Path, change: Callable[[Tensors], Tensors]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, path)


def remove(folder: Path, *names: str) -> None:
    for name in names:
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()


def test_a_partial_set_is_refused(folder: Path) -> None:
    remove(folder, "separation", "text_matching")
    with pytest.raises(MissingFileError, match="lacks the adapter folders separation, text_matching"):
        read(folder)


def test_the_base_alone_has_no_tasks_and_says_so(folder: Path) -> None:
    remove(folder, "retrieval_query", "retrieval_passage", "separation", "classification", "text_matching")
    encoder = load_encoder(folder, dtype=torch.float32, device=CPU)
    assert encoder.config.lora_adaptations == ()
    with pytest.raises(UnknownTaskError, match="this checkpoint has no adapters"):
        encoder.config.task_id("separation")
    expected = toy.encoder()(pack([toy.sequence([0, 9, 8, 2])]))
    torch.testing.assert_close(encoder(pack([toy.sequence([0, 9, 8, 2])])), expected)


def test_a_folder_that_the_config_does_not_list(folder: Path) -> None:
    (folder / "separation").rename(folder / "my_task")
    edit_json(folder / "config.json", lora_adaptations=[t for t in CONFIG.lora_adaptations if t != "separation"])
    raw = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", task_instructions={t: "" for t in raw["lora_adaptations"]})
    with pytest.raises(CheckpointError, match="adapter folders that config.json does not list .*: my_task"):
        read(folder)


def test_tasks_are_named_after_the_folders_where_the_config_names_none(folder: Path) -> None:
    """Native transformers forgets the tasks; known ones keep their order and prompts, others follow."""
    raw = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in raw.items() if key not in ("lora_adaptations", "task_instructions")}
    (folder / "config.json").write_text(json.dumps(kept))
    (folder / "separation").rename(folder / "a_new_task")
    config, tensors = read(folder)
    assert config.lora_adaptations == (*(t for t in CONFIG.lora_adaptations if t != "separation"), "a_new_task")
    assert config.prompt("retrieval.query") == CONFIG.prompt("retrieval.query")
    assert config.prompt("a_new_task") == ""
    assert torch.equal(tensors["pooler.dense.lora_A"][4], toy.encoder().state_dict()["pooler.dense.lora_A"][2])


def test_a_smaller_rank_and_another_scaling_give_the_same_products(folder: Path) -> None:
    """Rank 3 with alpha 6: padded to rank 4, and lora_B times (6 / 3) / (1 / 4)."""
    path = folder / "separation"
    edit_json(path / "adapter_config.json", r=3, lora_alpha=6)

    def cut(tensors: Tensors) -> Tensors:
        return {name: t[:3] if "_A" in name else t[:, :3] for name, t in tensors.items()}

    edit_tensors(path / "adapter_model.safetensors", cut)
    config, tensors = read(folder)
    assert (config.lora_rank, config.lora_scaling) == (CONFIG.lora_rank, CONFIG.lora_scaling)
    before = toy.encoder().state_dict()
    for layer in ("layers.1.attention.Wqkv", "layers.0.mlp.fc2"):
        a, b = before[f"{layer}.lora_A"][2][:3], before[f"{layer}.lora_B"][2][:, :3]
        found = config.lora_scaling * tensors[f"{layer}.lora_B"][2] @ tensors[f"{layer}.lora_A"][2]
        torch.testing.assert_close(found, 2.0 * b @ a)
    a, b = before["embeddings.word_embeddings.lora_A"][2][:, :3], before["embeddings.word_embeddings.lora_B"][2][:3]
    found = tensors["embeddings.word_embeddings.lora_A"][2] @ tensors["embeddings.word_embeddings.lora_B"][2]
    torch.testing.assert_close(config.lora_scaling * found, 2.0 * a @ b)
    others = [0, 1, 3, 4]
    assert torch.equal(tensors["layers.0.mlp.fc2.lora_B"][others], before["layers.0.mlp.fc2.lora_B"][others])


def test_a_scaling_that_all_share_changes_the_config_and_no_bits(folder: Path) -> None:
    for path in folder.glob("*/adapter_config.json"):
        edit_json(path, lora_alpha=32, use_rslora=True)
    config, tensors = read(folder)
    assert config.lora_scaling == 16.0
    assert torch.equal(tensors["pooler.dense.lora_B"], toy.encoder().state_dict()["pooler.dense.lora_B"])


@pytest.mark.parametrize("factor", [8.0, 3.0])
def test_folding_never_rounds(factor: float, tmp_path: Path) -> None:
    """bfloat16 stays where the product fits, and becomes float32 where it does not."""
    state = {name: tensor.bfloat16() for name, tensor in toy.encoder().state_dict().items()}
    write(tmp_path / "hf", CONFIG, state, layout="hf")
    edit_json(tmp_path / "hf" / "separation" / "adapter_config.json", lora_alpha=factor)
    _, tensors = read(tmp_path / "hf")
    found, stored = tensors["layers.0.mlp.fc2.lora_B"], state["layers.0.mlp.fc2.lora_B"]
    assert found.dtype == (torch.bfloat16 if factor == 8.0 else torch.float32)
    assert torch.equal(found[2].double(), stored[2].double() * factor)


@pytest.mark.parametrize("prefix", ["base_model.model.roberta.", "base_model.model.", ""])
def test_spellings_of_peft(folder: Path, prefix: str) -> None:
    """PEFT's own wrapper puts a prefix before every name; a bare model has no `roberta.`."""

    def rename(tensors: Tensors) -> Tensors:
        return {prefix + name.removeprefix("roberta."): t for name, t in tensors.items()}

    edit_tensors(folder / "classification" / "adapter_model.safetensors", rename)
    assert torch.equal(read(folder)[1]["pooler.dense.lora_A"], toy.encoder().state_dict()["pooler.dense.lora_A"])


def test_three_different_lora_a_are_refused(folder: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        tensors["roberta.encoder.layers.1.self_attn.v_proj.lora_A.weight"][0, 0] += 1
        return tensors

    edit_tensors(folder / "separation" / "adapter_model.safetensors", change)
    with pytest.raises(TensorError, match=r"layers.1.self_attn.v_proj.lora_A.weight' in .*separation.* differ"):
        read(folder)


@pytest.mark.parametrize(
    "name", ["roberta.pooler.dense.lora_B.weight", "roberta.encoder.layers.0.mlp.fc1.lora_A.weight"]
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: None, "missing from"),
        (lambda t: t[:-1], "has shape"),
        (lambda t: t.long(), "is of type I64"),
    ],
)
def test_damaged_adapters_are_named(folder: Path, name: str, change: Callable[..., Any], message: str) -> None:
    def damage(tensors: Tensors) -> Tensors:
        damaged = {**tensors, name: change(tensors[name])}
        return {k: t for k, t in damaged.items() if t is not None}

    edit_tensors(folder / "text_matching" / "adapter_model.safetensors", damage)
    with pytest.raises(TensorError, match=f"{name}.*{message}|{message}.*{name}") as caught:
        read(folder)
    assert "text_matching" in str(caught.value)


def test_left_over_adapter_tensors_but_for_heads(folder: Path) -> None:
    path = folder / "separation" / "adapter_model.safetensors"
    edit_tensors(path, lambda t: {**t, "lm_head.dense.lora_A.weight": torch.ones(4, 32)})
    read(folder)
    edit_tensors(path, lambda t: {**t, "roberta.pooler.dense.lora_C.weight": torch.ones(4, 32)})
    with pytest.raises(TensorError, match="lora_C.weight' is left over in .*separation"):
        read(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"peft_type": "IA3"},
        {"rank_pattern": {"fc1": 8}},
        {"r": 0},
        {"r": "4"},
        {"lora_alpha": None},
    ],
)
def test_settings_that_cannot_be_followed(folder: Path, changes: dict[str, Any]) -> None:
    edit_json(folder / "classification" / "adapter_config.json", **changes)
    with pytest.raises(CheckpointError, match="classification.adapter_config.json"):
        read(folder)


def test_pickled_and_foreign_adapters(folder: Path) -> None:
    path = folder / "separation" / "adapter_model.safetensors"
    edit_tensors(path, lambda t: {"something.else": torch.ones(1)})
    with pytest.raises(TensorError, match="holds no LoRA tensor of this model; its names are: something.else"):
        read(folder)
    path.rename(path.with_name("adapter_model.bin"))
    with pytest.raises(CheckpointError, match="pickled weights"):
        read(folder)
