"""Whole folders: every damage is an error with a name, native transformers in both directions, int8, atomic writing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3ForMaskedLM,
    JinaEmbeddingsV3ForSequenceClassification,
    JinaEmbeddingsV3Model,
)

from fivefold.checkpoint import WORD_TABLE, convert, detect_layout, load_encoder, read, save_adapter, write
from fivefold.compact import CODEBOOKS
from fivefold.config import ModelConfig
from fivefold.errors import CheckpointError, InputError, MissingFileError, TensorError
from fivefold.layouts import LAYOUTS, Form, Scheme, tensor_shapes
from fivefold.model import Encoder
from fivefold.packing import pack
from tests import toy

CONFIG = toy.config()
CPU = torch.device("cpu")
ROWS = [[0, 9, 8, 7, 31, 2], [0, 11, 4, 2]]
Tensors = dict[str, torch.Tensor]
V3_LAYOUTS = [name for name, layout in LAYOUTS.items() if layout.holds(CONFIG)]


def hidden(encoder: Encoder, task: str | None = None) -> torch.Tensor:
    """Hidden states of `ROWS`, end to end."""
    task_id = encoder.config.task_id(task)
    return encoder(pack([toy.sequence(row, task_id) for row in ROWS]))


def edit_tensors(path: Path, change: Callable[[Tensors], Tensors]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, path)


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", V3_LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_encoder_is_the_written_one(layout: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Ready to run in the dtype asked for: no gradients, nothing left on the meta device."""
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), layout=layout)
    encoder = load_encoder(tmp_path / "m", dtype=dtype, device=CPU)
    assert not encoder.training
    assert {(p.dtype, p.device.type, p.requires_grad) for p in encoder.parameters()} == {(dtype, "cpu", False)}
    for parameter in encoder.parameters():  # BLAS goes by where a matrix begins, and one in a file begins anywhere
        parameter.data = parameter.data.clone()
    assert torch.equal(hidden(encoder, "separation"), hidden(toy.encoder().to(dtype), "separation"))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the mappings of this process from proc")
def test_weights_of_the_wanted_dtype_stay_in_the_file(tmp_path: Path) -> None:
    """The matrices of a loaded model lie in mapped pages, not in memory of our own."""
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict())
    encoder = load_encoder(tmp_path / "m", dtype=torch.float32, device=CPU)
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(tmp_path / "m" / "model.safetensors") in line:
            mapped.append(tuple(int(end, 16) for end in line.split()[0].split("-")))
    assert mapped
    for parameter in encoder.parameters():
        assert any(start <= parameter.data_ptr() < stop for start, stop in mapped)


@pytest.mark.parametrize("layout", ["jina", "hf", "transformers", "fivefold"])
@pytest.mark.parametrize("own", ["embeddings.norm.weight", "layers.1.mlp.fc1.weight", "layers.0.attention.Wqkv.bias"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: None, "is missing from"),
        (lambda t: t[:-1], "has shape"),
        (lambda t: t.to(torch.int64), "is of type I64"),
    ],
)
def test_damaged_tensors_are_named(
    layout: str, own: str, change: Callable[..., Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), layout=layout)
    (foreign,) = LAYOUTS[layout].form.place(own).names

    def damage(tensors: Tensors) -> Tensors:
        damaged = {**tensors, foreign: change(tensors[foreign])}
        return {name: tensor for name, tensor in damaged.items() if tensor is not None}

    edit_tensors(tmp_path / "m" / "model.safetensors", damage)
    with pytest.raises(TensorError, match=f"{re.escape(foreign)}.*{message}.*") as caught:
        load_encoder(tmp_path / "m", dtype=torch.float32, device=CPU)
    assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize("layout", V3_LAYOUTS)
def test_left_over_tensors_are_named(layout: str, tmp_path: Path) -> None:
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), layout=layout)
    edit_tensors(tmp_path / "m" / "model.safetensors", lambda t: {**t, "position.weight": torch.ones(2)})
    with pytest.raises(TensorError, match="'position.weight' is left over in .*model.safetensors"):
        read(tmp_path / "m")


@pytest.mark.parametrize("layers", [1, 3])
def test_a_config_of_another_size_is_refused(layers: int, tmp_path: Path) -> None:
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), layout="jina")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": layers}))
    with pytest.raises(TensorError, match=r"and \d+ more\) is (missing from|left over in)"):
        read(tmp_path / "m")


def test_banks_that_the_config_does_not_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), layout="jina")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_adaptations": [], "task_instructions": {}}))
    with pytest.raises(TensorError, match="lora_A' .* is left over"):
        read(tmp_path / "m")


def test_our_own_folder_never_loses_its_pooler_in_silence(tmp_path: Path) -> None:
    """Foreign configs cannot say that there is no pooler; ours does."""
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict())
    keep = lambda tensors: {n: t for n, t in tensors.items() if not n.startswith("pooler.")}  # noqa: E731
    edit_tensors(tmp_path / "m" / "model.safetensors", keep)
    with pytest.raises(TensorError, match="'pooler.dense.bias'.* is missing"):
        read(tmp_path / "m")


def test_a_file_cut_short(tmp_path: Path) -> None:
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), layout="hf")
    path = tmp_path / "m" / "separation" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TensorError, match="separation.adapter_model.safetensors is not a whole safetensors file"):
        read(tmp_path / "m")


def test_something_else_altogether(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere is not a folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    save_file({"bert.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(TensorError, match="holds no tensor of this model; its names are: bert.weight"):
        read(tmp_path)


def test_the_original_without_adapters_is_read(tmp_path: Path) -> None:
    """Plain `.weight` names under `roberta.`, with a masked-LM head that is dropped."""
    config = toy.config(lora_adaptations=(), task_instructions={})
    state = toy.encoder(config).state_dict()
    write(tmp_path / "m", config, state, layout="jina")
    edit_tensors(tmp_path / "m" / "model.safetensors", lambda t: {**t, "lm_head.decoder.bias": torch.ones(400)})
    assert detect_layout(tmp_path / "m") == "jina"
    assert set(load_file(tmp_path / "m" / "model.safetensors")) >= {"roberta.encoder.layers.0.mixer.Wqkv.weight"}
    found = read(tmp_path / "m")[1]
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_the_names_that_native_modules_have_are_read(tmp_path: Path) -> None:
    """q, k and v apart and every norm renamed: a state dict saved without transformers' mapping."""
    config = toy.config(lora_adaptations=(), task_instructions={})
    state = toy.encoder(config).state_dict()
    write(tmp_path / "m", config, state, layout="transformers")
    split = {name: t.clone() for name, t in Form(Scheme.NATIVE).split(state).items()}
    save_file(split, tmp_path / "m" / "model.safetensors")
    assert detect_layout(tmp_path / "m") == "transformers"
    found = read(tmp_path / "m")[1]
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


# ---- native transformers --------------------------------------------------------------------------------------------


def native_config() -> JinaEmbeddingsV3Config:
    return JinaEmbeddingsV3Config(
        vocab_size=CONFIG.vocab_size,
        hidden_size=CONFIG.hidden_size,
        num_hidden_layers=CONFIG.num_hidden_layers,
        num_attention_heads=CONFIG.num_attention_heads,
        intermediate_size=CONFIG.intermediate_size,
        max_position_embeddings=CONFIG.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": 7000.0},
        initializer_range=0.5,
    )


@torch.no_grad()
def native_hidden(model: Any) -> torch.Tensor:
    """The referee, row by row."""
    return torch.cat([model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in ROWS])


@pytest.mark.parametrize(
    ("kind", "pooler", "prefix"),
    [
        (lambda c: JinaEmbeddingsV3Model(c), True, ""),
        (lambda c: JinaEmbeddingsV3Model(c, add_pooling_layer=False), False, ""),
        (JinaEmbeddingsV3ForMaskedLM, False, "roberta."),
        (JinaEmbeddingsV3ForSequenceClassification, False, "roberta."),
    ],
)
def test_what_native_transformers_saves(kind: Callable[..., Any], pooler: bool, prefix: str, tmp_path: Path) -> None:
    """Bare, without a pooler, and with heads; its rotary base is taken over."""
    torch.manual_seed(1)
    model = kind(native_config()).eval()
    model.save_pretrained(tmp_path / "native")
    assert f"{prefix}emb_ln.weight" in load_file(tmp_path / "native" / "model.safetensors")
    encoder = load_encoder(tmp_path / "native", dtype=torch.float32, device=CPU)
    assert detect_layout(tmp_path / "native") == "transformers"
    assert (encoder.config.pooler, encoder.config.rotary_emb_base) == (pooler, 7000.0)
    body = model.roberta if prefix else model
    torch.testing.assert_close(hidden(encoder), native_hidden(body), atol=3e-5, rtol=0)


@pytest.mark.parametrize("layout", ["hf", "transformers"])
def test_native_transformers_loads_what_we_write_and_saves_it_back(layout: str, tmp_path: Path) -> None:
    """Its own copy of an adapter, saved by PEFT's rules, is read again; the base's rotary base is not the default."""
    config = toy.config(lora_adaptations=("separation",), task_instructions={"separation": ""}, rotary_emb_base=7000.0)
    state = toy.encoder(config).state_dict()
    write(tmp_path / "ours", config, state, layout=layout)
    model = JinaEmbeddingsV3Model.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    assert model.config.rope_parameters["rope_theta"] == 7000.0
    model.load_adapter(str(tmp_path / "ours"), adapter_name="s", adapter_kwargs={"subfolder": "separation"})
    model.set_adapter("s")
    expected = native_hidden(model)
    encoder = load_encoder(tmp_path / "ours", dtype=torch.float32, device=CPU)
    torch.testing.assert_close(hidden(encoder, "separation"), expected, atol=3e-5, rtol=0)

    model.save_pretrained(tmp_path / "peft")
    (tmp_path / "ours" / "separation" / "adapter_model.safetensors").unlink()
    (tmp_path / "peft" / "adapter_model.safetensors").rename(
        tmp_path / "ours" / "separation" / "adapter_model.safetensors"
    )
    found = read(tmp_path / "ours")[1]
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


# ---- writing --------------------------------------------------------------------------------------------------------


def test_int8_matrices_keep_the_vectors(tmp_path: Path) -> None:
    """Matrices at a byte an entry and within half a step of their row; vectors and banks untouched."""
    state = toy.encoder().state_dict()
    state["embeddings.word_embeddings.weight"][5] = 0.0
    write(tmp_path / "m", CONFIG, state, quantize="int8")
    stored = load_file(tmp_path / "m" / "model.safetensors")
    matrices = {name for name, tensor in state.items() if tensor.ndim == 2}
    assert {name for name, tensor in stored.items() if tensor.dtype == torch.int8} == matrices
    found = read(tmp_path / "m")[1]
    for name, tensor in state.items():
        step = tensor.abs().amax(dim=1, keepdim=True) / 127 if name in matrices else torch.zeros(1)
        assert ((found[name] - tensor).abs() <= step * 0.5001).all(), name
    encoder = load_encoder(tmp_path / "m", dtype=torch.float32, device=CPU)
    assert torch.cosine_similarity(hidden(encoder), hidden(toy.encoder()), dim=-1).min() > 0.99


def test_int8_is_stable_and_converts(tmp_path: Path) -> None:
    """Stored once more it stays within a rounding of the scale, and foreign layouts get the float values."""
    write(tmp_path / "a", CONFIG, toy.encoder().state_dict(), quantize="int8")
    convert(tmp_path / "a", tmp_path / "b", layout="fivefold", quantize="int8")
    convert(tmp_path / "a", tmp_path / "c", layout="hf")
    first, second, third = (read(tmp_path / name)[1] for name in "abc")
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-6, atol=0)
        assert torch.equal(third[name], tensor)


def test_codebook_words_are_read_as_they_were_written(tmp_path: Path) -> None:
    config = toy.config(hidden_size=48, num_attention_heads=4)
    state = toy.encoder(config).state_dict()
    write(tmp_path / "a", config, state, quantize="codebook-words")
    stored = load_file(tmp_path / "a" / "model.safetensors")
    rows, columns = state[WORD_TABLE].shape
    assert stored[WORD_TABLE].dtype == torch.uint8 and stored[WORD_TABLE].shape == (rows, columns // 3)
    assert stored["layers.0.mlp.fc1.weight"].dtype == torch.int8
    words = read(tmp_path / "a")[1][WORD_TABLE]
    assert torch.equal(words, CODEBOOKS.decode(*(stored[WORD_TABLE + ending] for ending in ("", *CODEBOOKS.endings))))
    assert torch.cosine_similarity(words, state[WORD_TABLE]).min() > 0.9
    convert(tmp_path / "a", tmp_path / "b", layout="hf")
    assert torch.equal(read(tmp_path / "b")[1][WORD_TABLE], words)
    encoder = load_encoder(tmp_path / "a", dtype=torch.float32, device=CPU, int8=True)
    plain = load_encoder(tmp_path / "a", dtype=torch.float32, device=CPU)
    assert torch.cosine_similarity(hidden(encoder), hidden(plain), dim=-1).min() > 0.99


def test_books_without_their_basis_are_told(tmp_path: Path) -> None:
    config = toy.config(hidden_size=48, num_attention_heads=4)
    write(tmp_path / "a", config, toy.encoder(config).state_dict(), quantize="codebook-words")
    stored = load_file(tmp_path / "a" / "model.safetensors")
    del stored[WORD_TABLE + "_basis"]
    save_file(stored, tmp_path / "a" / "model.safetensors")
    with pytest.raises(TensorError, match="word_embeddings.weight_basis' is missing"):
        read(tmp_path / "a")


def test_words_without_terms_get_terms_of_zeros_in_foreign_layouts(tmp_path: Path) -> None:
    """The adapters do the same there, in every layout and as a folder of PEFT."""
    config = toy.config(lora_words=False)
    encoder = toy.encoder(config)
    state = encoder.state_dict()
    assert f"{WORD_TABLE.removesuffix('weight')}lora_A" not in state
    write(tmp_path / "own", config, state)
    assert read(tmp_path / "own")[0] == replace(config, torch_dtype="float32")
    for layout in ("jina", "hf", "transformers"):
        convert(tmp_path / "own", tmp_path / layout, layout=layout)
        found = load_encoder(tmp_path / layout, dtype=torch.float32, device=CPU)
        assert found.config.lora_words
        assert not found.embeddings.word_embeddings.lora_A.any()
        for task in config.lora_adaptations:
            torch.testing.assert_close(hidden(found, task), hidden(encoder, task), rtol=0, atol=1e-6)
    task = config.lora_adaptations[0]
    save_adapter(tmp_path / "own", tmp_path / "peft", task=task)
    terms = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    words = [tensor for name, tensor in terms.items() if "word_embeddings" in name]
    assert len(words) == 2 and not any(tensor.any() for tensor in words)


def test_what_books_cannot_hold_is_told(tmp_path: Path) -> None:
    config = toy.config(hidden_size=48, num_attention_heads=4)
    state = toy.encoder(config).state_dict()
    state["embeddings.word_embeddings.weight"][3, 3] = 1e30
    with pytest.raises(TensorError, match="too large for float16 scales; store it as 'int8'"):
        write(tmp_path / "m", config, state, quantize="codebook-words")
    with pytest.raises(InputError, match="a hidden size of 32 has no such form: it is not a multiple of 3"):
        write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), quantize="codebook-words")
    with pytest.raises(InputError, match="unknown quantization 'int3'; there are: int8, codebook-words"):
        write(tmp_path / "m", config, state, quantize="int3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "pooler.dense.weight_scale": torch.ones(3)}, "weight_scale' in .* has shape"),
        (lambda t: {n: x for n, x in t.items() if n != "pooler.dense.weight_scale"}, "weight' .* is of type I8"),
        (lambda t: {**t, "pooler.dense.weight": t["pooler.dense.weight"].float()}, "weight' .* is of type F32"),
        (lambda t: {**t, "embeddings.norm.weight_scale": torch.ones(32)}, "norm.weight_scale' is left over"),
    ],
)
def test_damaged_int8_is_named(change: Callable[[Tensors], Tensors], message: str, tmp_path: Path) -> None:
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), quantize="int8")
    edit_tensors(tmp_path / "m" / "model.safetensors", change)
    with pytest.raises(TensorError, match=message):
        read(tmp_path / "m")


def test_nan_is_not_hidden_by_int8(tmp_path: Path) -> None:
    state = toy.encoder().state_dict()
    state["pooler.dense.weight"][0, 0] = float("nan")
    with pytest.raises(TensorError, match="'pooler.dense.weight' holds NaN"):
        write(tmp_path / "m", CONFIG, state, quantize="int8")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path) -> None:
    """Unknown layouts, int8 elsewhere, and tensors that are not the config's leave nothing behind."""
    state = toy.encoder().state_dict()
    with pytest.raises(
        InputError, match="unknown layout 'onnx'; there are: jina, hf, transformers, jinabert, fivefold"
    ):
        write(tmp_path / "m", CONFIG, state, layout="onnx")
    with pytest.raises(InputError, match="'jina' has no quantized matrices"):
        convert(tmp_path / "x", tmp_path / "m", layout="jina", quantize="int8")
    bias = state.pop("pooler.dense.bias")
    with pytest.raises(TensorError, match="'pooler.dense.bias' cannot be written, it is missing"):
        write(tmp_path / "m", CONFIG, state)
    with pytest.raises(TensorError, match="'pooler.dense.bias' has shape"):
        write(tmp_path / "m", CONFIG, {**state, "pooler.dense.bias": bias[:3]})
    with pytest.raises(TensorError, match="'other' cannot be written, it is left over"):
        write(tmp_path / "m", CONFIG, {**state, "pooler.dense.bias": bias, "other": bias})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "layout", "message"),
    [
        (CONFIG, "jinabert", "rotary positions, .* 5 adapters; write 'jina' or 'hf' or 'transformers' or 'fivefold'"),
        (toy.jinabert_config(), "hf", "alibi positions, geglu .*; write 'jinabert' or 'fivefold'"),
        (toy.jinabert_config(lora_adaptations=("a",)), "jinabert", ".* 1 adapters; write 'fivefold'"),
        (toy.jinabert_config(feed_forward_type="original"), "jinabert", ".* original .*; write 'fivefold'"),
    ],
)
def test_a_layout_of_the_other_architecture(config: ModelConfig, layout: str, message: str, tmp_path: Path) -> None:
    """Refused by name, with those that fit."""
    with pytest.raises(InputError, match=f"layout '{layout}' has no place for this model, which has {message}"):
        write(tmp_path / "m", config, toy.encoder(config).state_dict(), layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_a_jinabert_config_says_what_its_code_needs(tmp_path: Path) -> None:
    """The keys of the v2 repositories, and no others of ours."""
    for variant, code in ((False, "jinaai/jina-bert-implementation"), (True, "jinaai/jina-bert-v2-qk-post-norm")):
        config = toy.jinabert_config(qk_post_norm=variant)
        write(tmp_path / str(variant), config, toy.encoder(config).state_dict(), layout="jinabert")
        raw = json.loads((tmp_path / str(variant) / "config.json").read_text())
        assert raw["_name_or_path"] == code
        assert {name.split("--")[0] for name in raw["auto_map"].values()} == {code}
        assert (raw["position_embedding_type"], raw["feed_forward_type"], raw["emb_pooler"]) == (
            "alibi",
            "geglu",
            "mean",
        )
        assert not {"qk_post_norm", "pooler", "lora_rank", "rotary_emb_base"} & set(raw)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A target with files in it is refused; an empty one is taken."""
    (tmp_path / "m").mkdir()
    write(tmp_path / "m", CONFIG, toy.encoder().state_dict())
    before = (tmp_path / "m" / "config.json").stat().st_mtime_ns
    with pytest.raises(CheckpointError, match="m exists and is not an empty folder"):
        write(tmp_path / "m", CONFIG, toy.encoder().state_dict(), layout="hf")
    assert (tmp_path / "m" / "config.json").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_side_files_go_along(tmp_path: Path) -> None:
    """Tokenizer, card, licence and pooling settings; no pickles, graphs or code."""
    write(tmp_path / "a", CONFIG, toy.encoder().state_dict(), layout="jina")
    (tmp_path / "a" / "1_Pooling").mkdir()
    (tmp_path / "a" / "onnx").mkdir()
    kept = ["tokenizer.json", "README.md", "LICENSE", "modules.json", "1_Pooling/config.json"]
    for name in [*kept, "custom_st.py", "pytorch_model.bin", "onnx/model.onnx"]:
        (tmp_path / "a" / name).write_text(name)
    convert(tmp_path / "a", tmp_path / "b", layout="fivefold")
    found = {str(path.relative_to(tmp_path / "b")) for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert found == {*kept, "config.json", "model.safetensors"}
    assert (tmp_path / "b" / "1_Pooling" / "config.json").read_text() == "1_Pooling/config.json"


def test_configs_keep_what_their_readers_need(tmp_path: Path) -> None:
    """The keys of the published files; the stored dtype is told as it is."""
    state = {name: tensor.bfloat16() for name, tensor in toy.encoder().state_dict().items()}
    raw = {}
    for layout in V3_LAYOUTS:
        write(tmp_path / layout, CONFIG, state, layout=layout)
        raw[layout] = json.loads((tmp_path / layout / "config.json").read_text())
    shared = {"lora_adaptations", "lora_rank", "lora_alpha", "task_instructions", "matryoshka_dimensions"}
    for config in raw.values():
        assert shared <= set(config)
        assert config["torch_dtype"] == "bfloat16"
        assert config["rotary_emb_base"] == 20000.0
    assert raw["jina"]["auto_map"]["AutoModel"].endswith("--modeling_lora.XLMRobertaLoRA")
    assert "model_type" not in raw["jina"]
    for layout in ("hf", "transformers"):
        assert raw[layout]["model_type"] == "jina_embeddings_v3"
        assert raw[layout]["rope_parameters"] == {"rope_type": "default", "rope_theta": 20000.0}
        assert "auto_map" not in raw[layout]


def test_shapes_cost_nothing_at_full_size() -> None:
    """The shapes of the real model come from the meta device."""
    shapes = tensor_shapes(ModelConfig(lora_adaptations=CONFIG.lora_adaptations))
    assert shapes["embeddings.word_embeddings.weight"] == (250002, 1024)
    assert len(shapes) == 492
