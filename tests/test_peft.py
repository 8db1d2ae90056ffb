"""LoRA folders that the real PEFT wrote on native transformers' model, served beside the checkpoint's own tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import JinaEmbeddingsV3ForMaskedLM, JinaEmbeddingsV3Model

from fivefold import CheckpointError, Embedder, InputError, MissingFileError, TensorError, UnknownTaskError
from fivefold.checkpoint import convert, load_encoder, save_adapter, write
from fivefold.config import ModelConfig
from fivefold.model import Encoder
from fivefold.packing import pack
from fivefold.peft import LoraSettings, add_adapter
from tests import toy

# PEFT reads an attribute that transformers has renamed since.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CPU = torch.device("cpu")
IDS = torch.tensor([[0, 17, 33, 5, 2], [0, 9, 200, 41, 2]])
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"]
TABLES = ["word_embeddings", "token_type_embeddings"]

# What people train: other ranks and alphas, some modules, patterns by module, a head's model around the encoder.
FOLDERS: dict[str, dict[str, Any]] = {
    "two projections": {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "all, rslora": {"r": 8, "lora_alpha": 3, "use_rslora": True, "target_modules": [*LINEARS, *TABLES, "dense"]},
    "words alone": {"r": 3, "lora_alpha": 3, "target_modules": ["word_embeddings"]},
    "one layer": {
        "r": 1,
        "lora_alpha": 2,
        "target_modules": LINEARS,
        "layers_to_transform": [1],
        "layers_pattern": "layers",
    },
    "patterns": {
        "r": 4,
        "lora_alpha": 2,
        "target_modules": [*LINEARS, "word_embeddings"],
        "rank_pattern": {"fc1": 7, "layers.1.self_attn.k_proj": 2, r"layers\.\d.mlp.fc2": 1},
        "alpha_pattern": {"layers.1.self_attn.k_proj": 5, "word_embeddings": 1, "[qv]_proj": 9},
    },
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `hf` folder with five tasks and the toy tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "hf"
    write(folder, toy.config(), toy.encoder().state_dict(), layout="hf")
    toy.rust_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def train(base: Path, folder: Path, settings: dict[str, Any], kind: Any = JinaEmbeddingsV3Model) -> torch.Tensor:
    """Save a LoRA with random terms as PEFT does; -> its hidden states of `IDS`, [2, 5, D]."""
    wrapped = get_peft_model(kind.from_pretrained(base), LoraConfig(**settings)).eval()
    torch.manual_seed(len(folder.name))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.4)
        wrapped.save_pretrained(folder)
        states: torch.Tensor = wrapped(IDS, output_hidden_states=True).hidden_states[-1]
    return states


def ours(encoder: Encoder, task: str | None) -> torch.Tensor:
    task_id = encoder.config.task_id(task)
    return encoder(pack([toy.sequence(row, task_id) for row in IDS.tolist()])).view(2, 5, -1)


def load(base: Path, **folders: Path) -> Encoder:
    """The base and an adapter for each folder."""
    encoder = load_encoder(base, dtype=torch.float32, device=CPU)
    for name, folder in folders.items():
        add_adapter(encoder, name, folder)
    return encoder


@pytest.mark.parametrize("name", FOLDERS)
def test_hidden_states_are_pefts(base: Path, tmp_path: Path, name: str) -> None:
    expected = train(base, tmp_path / name, FOLDERS[name])
    encoder = load(base, mine=tmp_path / name)
    plain = ours(encoder, None)
    assert not torch.allclose(expected, plain, atol=1e-2)
    torch.testing.assert_close(ours(encoder, "mine"), expected, atol=2e-5, rtol=0)
    encoder.merge("mine")
    torch.testing.assert_close(ours(encoder, None), expected, atol=2e-5, rtol=0)


def test_an_adapter_of_a_model_with_a_head(base: Path, tmp_path: Path) -> None:
    settings = FOLDERS["two projections"]
    expected = train(base, tmp_path / "a", settings, JinaEmbeddingsV3ForMaskedLM)
    torch.testing.assert_close(ours(load(base, a=tmp_path / "a"), "a"), expected, atol=2e-5, rtol=0)


def test_an_adapter_that_transformers_saved(base: Path, tmp_path: Path) -> None:
    model = JinaEmbeddingsV3Model.from_pretrained(base)
    model.add_adapter(LoraConfig(**FOLDERS["all, rslora"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.4)
        expected = model.eval()(IDS).last_hidden_state
    model.save_pretrained(tmp_path / "a")
    torch.testing.assert_close(ours(load(base, a=tmp_path / "a"), "a"), expected, atol=2e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::fivefold.TruncationWarning")
def test_mixed_with_the_checkpoints_own_tasks(base: Path, tmp_path: Path) -> None:
    """Seven tasks and none in one forward pass; each text as if it were alone."""
    for name in ("patterns", "words alone"):
        train(base, tmp_path / name, FOLDERS[name])
    embedder = Embedder.load(
        base, device="cpu", adapters={"mine": tmp_path / "patterns", "yours": str(tmp_path / "words alone")}
    )
    assert embedder.tasks == (*toy.config().lora_adaptations, "mine", "yours")
    tasks = [None, *embedder.tasks, "mine"]
    mixed = embedder.encode(toy.TEXTS[:9], task=tasks, max_length=60)
    alone = [embedder.encode(text, task=task, max_length=60) for text, task in zip(toy.TEXTS, tasks, strict=False)]
    np.testing.assert_allclose(mixed, alone, atol=1e-5)
    before = Embedder.load(base, device="cpu").encode(toy.TEXTS[:6], task=tasks[:6], max_length=60)
    np.testing.assert_allclose(mixed[:6], before, atol=1e-6)


def test_a_prompt_goes_with_the_name(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "a", FOLDERS["two projections"])
    plain = Embedder.load(base, device="cpu", adapters={"mine": tmp_path / "a"})
    prompted = Embedder.load(base, device="cpu", adapters={"mine": tmp_path / "a"}, prompts={"mine": "Text: "})
    np.testing.assert_array_equal(prompted.encode("a fox", task="mine"), plain.encode("Text: a fox", task="mine"))
    assert prompted.config.prompt("retrieval.query") == plain.config.prompt("retrieval.query") != ""
    with pytest.raises(UnknownTaskError, match="unknown task 'theirs'"):
        Embedder.load(base, device="cpu", prompts={"theirs": "Text: "})


def test_other_tasks_pay_nothing(base: Path, tmp_path: Path) -> None:
    """Banks keep their rank, the state its names; a lora_A that queries, keys and values share is kept once."""
    train(base, tmp_path / "wide", {"r": 16, "target_modules": ["q_proj", "v_proj"]})
    encoder = load(base, wide=tmp_path / "wide", own=base / "separation")
    assert {name: t.shape for name, t in encoder.state_dict().items()} == {
        name: t.shape for name, t in load(base).state_dict().items()
    }
    layer = encoder.layers[0]
    wide, own = (layer.attention.Wqkv.term(task_id) for task_id in (5, 6))
    assert wide[0].shape == (32, 32) and wide[1].shape == (96, 32) and own[0].shape == (4, 32)
    assert layer.mlp.fc1.term(5) is None and encoder.embeddings.word_embeddings.term(5) is None


def test_our_own_folders_are_such_folders(base: Path) -> None:
    encoder = load(base, one=base / "separation", two=base / "retrieval_query")
    for own, added in (("separation", "one"), ("retrieval.query", "two")):
        torch.testing.assert_close(ours(encoder, added), ours(encoder, own), atol=1e-5, rtol=0)


def test_a_base_without_tasks_and_half_precision(tmp_path: Path) -> None:
    config: ModelConfig = toy.config(lora_adaptations=(), task_instructions={})
    write(tmp_path / "bare", config, toy.encoder(config).state_dict(), layout="transformers")
    expected = train(tmp_path / "bare", tmp_path / "a", FOLDERS["two projections"])
    torch.testing.assert_close(ours(load(tmp_path / "bare", a=tmp_path / "a"), "a"), expected, atol=2e-5, rtol=0)
    half = load_encoder(tmp_path / "bare", dtype=torch.bfloat16, device=CPU)
    add_adapter(half, "a", tmp_path / "a")
    assert ours(half, "a").dtype == torch.bfloat16
    assert (ours(half, "a").float() - expected).abs().mean() < 0.05


@pytest.mark.filterwarnings("ignore:.*have invalid shape")  # PEFT takes its own lora_bias for a damaged term
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias 'all'"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"trainable_token_indices": {"word_embeddings": [7]}}, "trainable_token_indices"),
    ],
)
def test_what_is_more_than_plain_lora_is_named(
    base: Path, tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    train(base, tmp_path / "a", {"r": 2, "target_modules": ["o_proj", "fc1"], **settings})
    with pytest.raises(
        CheckpointError, match=f"adapter_config.json: only plain LoRA can be read, not .*{named}.*merge"
    ):
        load(base, a=tmp_path / "a")


@pytest.mark.parametrize("changes", [{"peft_type": "IA3"}, {"r": 0}, {"lora_alpha": None}, {"lora_alpha": -1}])
def test_settings_that_mean_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    assert LoraSettings.from_file(path).scaling() == 2.0
    path.write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **changes}))
    with pytest.raises(CheckpointError, match="adapter_config.json"):
        LoraSettings.from_file(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("q_proj.lora_A", lambda t: None, r"q_proj.lora_A.weight' is missing from .*other half"),
        ("q_proj.lora_B", lambda t: t[:-1], r"q_proj.lora_B.weight' .*shape \[31, 2\].*\[32, 2\]"),
        ("v_proj.lora_A", lambda t: t[:, :-1], r"v_proj.lora_A.weight' .*shape \[2, 31\].*\[2, 32\]"),
        ("v_proj.lora_B", lambda t: t.long(), r"v_proj.lora_B.weight' .* is torch.int64"),
    ],
)
def test_damaged_tensors_are_named(base: Path, tmp_path: Path, name: str, change: Any, message: str) -> None:
    train(base, tmp_path / "a", FOLDERS["two projections"])
    path = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(key for key in tensors if name in key)
    changed = change(tensors.pop(key))
    save_file({**tensors, **({} if changed is None else {key: changed.contiguous()})}, path)
    with pytest.raises(TensorError, match=message):
        load(base, a=tmp_path / "a")


def test_other_refusals(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "a", FOLDERS["two projections"])
    with pytest.raises(InputError, match="has a task 'separation' already"):
        load(base, separation=tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.layers.0.mlp.fc3.lora_A.weight": torch.ones(2, 32)}, path)
    with pytest.raises(TensorError, match="fc3.lora_A.weight' is left over"):
        load(base, a=tmp_path / "a")
    save_file({"other.lora_A.weight": torch.ones(1)}, path)
    with pytest.raises(TensorError, match="holds no LoRA tensor of this model; its names are: other"):
        load(base, a=tmp_path / "a")
    with pytest.raises(MissingFileError, match="adapter_config.json does not exist"):
        load(base, a=tmp_path)


# ---- ours to PEFT ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(
    "ignore:Found missing adapter keys.*lm_head.dense"
)  # "dense" names a module of this head too
@pytest.mark.parametrize("kind", [JinaEmbeddingsV3Model, JinaEmbeddingsV3ForMaskedLM])
def test_peft_loads_our_adapters(base: Path, tmp_path: Path, kind: Any) -> None:
    """The encoder takes the folder of `save_adapter`, a model with a head the one of the `hf` layout."""
    save_adapter(base, tmp_path / "separation", task="separation")
    folder = (tmp_path if kind is JinaEmbeddingsV3Model else base) / "separation"
    wrapped = PeftModel.from_pretrained(kind.from_pretrained(base), folder).eval()
    with torch.no_grad():
        found = wrapped(IDS, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found, ours(load(base), "separation"), atol=2e-5, rtol=0)


def test_there_and_back_is_the_identity(base: Path, tmp_path: Path) -> None:
    """Out of any layout, through PEFT's own loading and saving, bit for bit; and back in as a task."""
    convert(base, tmp_path / "ours", layout="fivefold")
    for source in (base, tmp_path / "ours"):
        save_adapter(source, tmp_path / f"from-{source.name}", task="separation")
    PeftModel.from_pretrained(JinaEmbeddingsV3Model.from_pretrained(base), tmp_path / "from-hf").save_pretrained(
        tmp_path / "again"
    )
    first, *others = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("from-hf", "from-ours", "again")
    )
    for other in others:
        assert other.keys() == first.keys() and all(torch.equal(other[name], first[name]) for name in first)
    encoder = load(base, again=tmp_path / "again")
    torch.testing.assert_close(ours(encoder, "again"), ours(encoder, "separation"), atol=1e-6, rtol=0)


def test_there_is_no_such_task(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownTaskError, match="unknown task 'sts'"):
        save_adapter(base, tmp_path / "a", task="sts")
    assert not (tmp_path / "a").exists()
