"""quantization.py: layers in 8 bits against their formulas and their bounds, and what is chosen on which processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold import checkpoint, kernels
from fivefold.attention import apply_rope, apply_turns, rotary_tables
from fivefold.compact import INT8
from fivefold.config import ModelConfig
from fivefold.embedder import Embedder, TorchBackend
from fivefold.errors import InputError
from fivefold.lora import LoRALinear
from fivefold.model import Encoder
from fivefold.packing import TaskSlice, pack
from fivefold.quantization import (
    DTYPES,
    INT8_FEATURES,
    INT8_OPERATORS,
    Int8Linear,
    Int8Lookup,
    choose,
    lack_of_kernels,
    paired_rows,
    prepack,
    processor,
    quantize,
    quantized_names,
)
from tests import toy

CPU = torch.device("cpu")
SLICES = (TaskSlice(-1, 0, 2), TaskSlice(0, 2, 3), TaskSlice(2, 3, 7), TaskSlice(9, 7, 8))

needs_int8 = pytest.mark.skipif(choose("int8", CPU).name != "int8", reason=choose("int8", CPU).why)
OVERFLOWS = "" if any(map(processor().get, INT8_FEATURES)) else "torch's products of bytes overflow on this processor"
needs_torch_int8 = pytest.mark.skipif(bool(OVERFLOWS) or choose("int8", CPU).name != "int8", reason=OVERFLOWS)


@pytest.fixture(params=["kernels", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both ways to compute in 8 bits."""
    if request.param == "torch" and OVERFLOWS:
        pytest.skip(OVERFLOWS)
    elif request.param == "torch":
        monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "none.so")
    elif lack := lack_of_kernels():
        pytest.skip(lack)


def linear(inputs: int = 32, outputs: int = 24) -> LoRALinear:
    """Normal random numbers, three tasks and one beside them."""
    torch.manual_seed(0)
    layer = LoRALinear(inputs, outputs, tasks=3, rank=2, scaling=0.25).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.normal_()
    return layer


def small(encoder: Encoder) -> Encoder:
    """The encoder in 8 bits; it is used up."""
    tensors = dict(encoder.state_dict())
    quantize(encoder, lambda name: INT8.encode(tensors[name]))
    return encoder


def embedders(config: ModelConfig | None = None) -> tuple[Embedder, Embedder]:
    """The same random model in float32 and in 8 bits; calm enough that rounding is what tells them apart."""
    made = config or toy.config(max_position_embeddings=128)
    both = (toy.encoder(made, adapters=0.1), small(toy.encoder(made, adapters=0.1)))
    exact, rounded = (Embedder(TorchBackend(e, CPU), toy.tokenizer(made), max_batch_tokens=150) for e in both)
    return exact, rounded


@needs_torch_int8
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e4]), st.floats(-3, 3))
@settings(max_examples=25)
def test_a_linear_is_off_by_no_more_than_its_two_roundings(seed: int, size: float, shift: float) -> None:
    """Half a step of each input times the weights, and half a step of each weight times the inputs."""
    layer = linear()
    x = size * (torch.randn(8, 32, generator=torch.Generator().manual_seed(seed)) + shift)
    rounded = Int8Linear(layer, *INT8.encode(layer.weight))
    steps = (x.amax(1) - x.amin(1)) / 255 / 2, layer.weight.abs().amax(1) / 127 / 2
    spread = steps[0][:, None] * (layer.weight.abs().sum(1) + 32 * steps[1]) + x.abs().sum(1)[:, None] * steps[1]
    error = (rounded(x, SLICES) - layer(x, SLICES)).abs()
    assert (error <= 1.01 * spread + 1e-4 * (1 + size)).all()


@needs_torch_int8
def test_terms_of_tasks_are_not_rounded() -> None:
    """What a task adds is that of the float32 layer, also for a task added afterwards."""
    layer, x = linear(), torch.randn(8, 32)
    rounded = Int8Linear(layer, *INT8.encode(layer.weight))
    for own in (layer, rounded):
        own.add_term(9, torch.ones(3, 32), torch.full((24, 3), 0.5))
    plain = (TaskSlice(-1, 0, 8),)
    found = rounded(x, SLICES) - rounded(x, plain)
    torch.testing.assert_close(found, layer(x, SLICES) - layer(x, plain), atol=1e-4, rtol=1e-5)


@needs_int8
def test_outputs_can_be_rearranged_with_their_terms() -> None:
    layer, x = linear(), torch.randn(8, 32)
    order = torch.randperm(24)
    codes = INT8.encode(layer.weight)
    straight, turned = Int8Linear(layer, *codes), Int8Linear(layer, *codes, order=order)
    for own in (straight, turned):
        own.add_term(9, torch.ones(3, 32), torch.randn(24, 3, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(turned(x, SLICES), straight(x, SLICES)[:, order])


def test_a_rotation_of_neighbours_is_the_rotation_of_halves() -> None:
    """Scores do not change when rows are rearranged and turned as complex numbers."""
    heads, width, tokens = 3, 8, 5
    qkv = torch.randn(tokens, 3 * heads * width)
    cos, sin = rotary_tables(torch.arange(tokens), width, 20000.0, torch.float32)
    halves = [x.view(tokens, heads, width) for x in qkv.chunk(3, 1)]
    neighbours = [x.view(tokens, heads, width) for x in qkv[:, paired_rows(heads, width)].chunk(3, 1)]
    q, k = (apply_rope(x, cos, sin) for x in halves[:2])
    q2, k2 = (apply_turns(x, torch.complex(cos, sin)) for x in neighbours[:2])
    torch.testing.assert_close(torch.einsum("inh,jnh->nij", q2, k2), torch.einsum("inh,jnh->nij", q, k))
    assert torch.equal(neighbours[2], halves[2])


def test_a_lookup_widens_the_rows_it_gathers() -> None:
    codes, scales = INT8.encode(torch.randn(9, 6))
    ids = torch.tensor([0, 8, 8, 3])
    assert torch.equal(Int8Lookup(codes, scales)(ids), INT8.decode(codes, scales)[ids])


WIDE = {"hidden_size": 64, "num_attention_heads": 2, "matryoshka_dimensions": (64,)}
"""Heads of 32, which the kernels have attention for."""


@needs_int8
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "config",
    [toy.config(max_position_embeddings=128), toy.config(max_position_embeddings=128, **WIDE), toy.jinabert_config()],
)
def test_vectors_stay_close_to_those_of_float32(config: ModelConfig) -> None:
    exact, rounded = embedders(config)
    for task in (None, *config.lora_adaptations):
        cosines = (exact.encode(toy.TEXTS, task=task) * rounded.encode(toy.TEXTS, task=task)).sum(1)
        assert cosines.min() > 0.99


PAIRS = st.lists(
    st.tuples(st.sampled_from(toy.TEXTS), st.sampled_from((None, *toy.config().lora_adaptations))), min_size=1
)


def together_and_alone(config: ModelConfig, pairs: list[tuple[str, str | None]]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of texts with tasks, in one call and in one for each."""
    _, rounded = embedders(config)
    together = rounded.encode([text for text, _ in pairs], task=[task for _, task in pairs])
    return together, np.stack([rounded.encode(text, task=task) for text, task in pairs])


@needs_int8
@given(PAIRS)
@settings(max_examples=10)
def test_a_vector_in_8_bits_hardly_depends_on_its_pack(pairs: list[tuple[str, str | None]]) -> None:
    """Alone equals in a mixed batch but for float32 sums of torch that fall on the other side of a rounding."""
    together, alone = together_and_alone(toy.config(max_position_embeddings=128), pairs)
    assert (together * alone).sum(1).min() > 0.9999


@pytest.mark.skipif(bool(lack_of_kernels()), reason=lack_of_kernels())
@given(PAIRS)
@settings(max_examples=10)
def test_by_our_own_kernels_it_does_not_depend_on_it_at_all(pairs: list[tuple[str, str | None]]) -> None:
    together, alone = together_and_alone(toy.config(max_position_embeddings=128, **WIDE), pairs)
    assert np.array_equal(together, alone)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
def test_prepacked_linears_give_the_same_hidden_states() -> None:
    plain, packed = toy.encoder(), toy.encoder()
    prepack(packed)
    batch = pack([toy.sequence([1, 2, 3], 0), toy.sequence([4, 5, 6, 7], -1)])
    torch.testing.assert_close(packed(batch), plain(batch))
    assert not any(isinstance(m, LoRALinear) and "weight" in dict(m.named_parameters()) for m in packed.modules())


@needs_int8
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("stored", ["int8", "codebook-words", None])
def test_every_way_of_storing_loads_to_the_same_codes(tmp_path: Path, stored: str | None) -> None:
    """Codes that are stored are taken as they are; others are rounded, which gives those that would have been stored."""
    encoder = toy.encoder(toy.config(hidden_size=48, num_attention_heads=4))
    checkpoint.write(tmp_path / "model", encoder.config, dict(encoder.state_dict()), quantize=stored)
    opened = checkpoint.open_checkpoint(tmp_path / "model")
    for name in quantized_names(encoder):
        if stored != "codebook-words" or name != checkpoint.WORD_TABLE:
            found, wanted = opened.codes(name), INT8.encode(encoder.state_dict()[name])
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    loaded = checkpoint.load_encoder(tmp_path / "model", dtype=torch.float32, device=CPU, int8=True)
    floats = checkpoint.load_encoder(tmp_path / "model", dtype=torch.float32, device=CPU)
    batch = pack([toy.sequence([1, 2, 3], 0), toy.sequence([4, 5, 6, 7], -1)])
    assert torch.equal(loaded(batch), small(floats)(batch))
    assert not any(p.is_meta for p in loaded.parameters())


@needs_int8
def test_no_task_is_merged_into_8_bits() -> None:
    with pytest.raises(InputError, match="dtype='float32'"):
        small(toy.encoder()).merge("separation")


@pytest.mark.parametrize(
    ("asked", "features", "name", "why"),
    [
        (None, {"avx512_vnni": True}, "float32", ""),
        ("int8", {"avx_vnni": True}, "int8", ""),
        ("auto", {"avx512_vnni": True, "avx512_bf16": True}, "int8", "avx512_vnni"),
        ("auto", {"avx512_bf16": True}, "bfloat16", "has avx512_bf16, but"),
        ("int8", {"architecture": "aarch64", "neon": True}, "float32", "has none of avx512_vnni"),
        ("bfloat16", {}, "bfloat16", ""),
    ],
)
def test_what_is_chosen_on_which_processor(asked: str | None, features: dict[str, bool], name: str, why: str) -> None:
    if not all(hasattr(getattr(torch.ops, library), op) for library, op in INT8_OPERATORS):
        pytest.skip("this torch has no int8 path at all")
    found = choose(asked, CPU, features)
    assert found.name == name and why in found.why
    assert found.describe().startswith(name)


def test_avx2_is_enough_where_there_are_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's products of bytes overflow there."""
    if not lack_of_kernels():
        found = choose("auto", CPU, {"avx2": True})
        assert (found.name, found.why) == ("int8", "the processor has avx2")
    monkeypatch.setattr(kernels, "LIBRARY", Path("none.so"))
    found = choose("auto", CPU, {"avx2": True})
    assert found.name == "float32" and "has none of avx512_vnni" in found.why


@needs_torch_int8
def test_who_has_no_kernels_is_told_what_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LIBRARY", Path("none.so"))
    for name in ("int8", "auto"):
        assert (
            "by torch's operators: fivefold's own kernels were not built"
            in choose(name, CPU, {"avx512_vnni": True}).why
        )
    assert "has no avx2" in choose("int8", CPU, {"avx_vnni": True}).why


def test_a_gpu_has_no_int8_and_its_own_auto() -> None:
    with pytest.raises(InputError, match="for CPUs"):
        choose("int8", torch.device("cuda"))
    assert choose("auto", torch.device("cuda")).name == choose(None, torch.device("cuda")).name == "bfloat16"


def test_an_unknown_dtype_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=", ".join(DTYPES)):
        choose("int3", CPU)


def test_an_older_torch_has_no_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fivefold.quantization.INT8_OPERATORS", (("onednn", "no_such_operator"),))
    monkeypatch.setattr(kernels, "LIBRARY", Path("none.so"))
    assert "no_such_operator" in choose("auto", CPU, dict.fromkeys(INT8_FEATURES, True)).why
