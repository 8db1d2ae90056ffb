"""fused.py: floats by the kernels, against float64; the same bits in any pack and for any number of threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from fivefold import kernels
from fivefold.config import ModelConfig
from fivefold.embedder import TorchBackend
from fivefold.fused import KernelLayers, KernelLinear
from fivefold.kernels import ONE_PART, TWO_BY_ONE, TWO_PARTS, WHOLE
from fivefold.lora import LoRALinear
from fivefold.model import Encoder
from fivefold.packing import TaskSlice, pack
from fivefold.quantization import BY_KERNELS, IN_BFLOAT16, Precision, prepack
from tests import toy

CPU = torch.device("cpu")
LENGTHS = (1, 5, 16, 17, 31, 33, 64, 65, 127, 128, 129, 300)
"""Around the kernels' tiles and blocks of keys."""
NAMES = tuple(IN_BFLOAT16)
LOST = {ONE_PART: 2 * 2.0**-8 + 2.0**-16, TWO_PARTS: 2 * 2.0**-17 + 2.0**-16, WHOLE: 2.0**-16}
"""What may be lost of a product of two numbers, by their form: 2^-8 of each number in one bfloat16, 2^-17 in two, and there
the product of both second parts, each at most 2^-8 of its number. And to sum up loses something."""


pytestmark = pytest.mark.usefixtures("library", "threads", "vectors")


def need(form: int) -> None:
    """Only where the processor multiplies such numbers."""
    if form != WHOLE and (lack := kernels.lack_of_bfloat16(form)):
        pytest.skip(lack)


def linear(inputs: int, outputs: int, form: int, *, rank: int = 4) -> tuple[LoRALinear, KernelLinear]:
    """A random one, and the same by the kernels."""
    need(form)
    layer = LoRALinear(inputs, outputs, tasks=3, rank=rank, scaling=0.25).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.normal_()
    return layer, KernelLinear(layer, kernels.pack_floats(layer.weight, form), kernels=kernels.Kernels())


def config(heads: int = 4, inner: int = 208) -> ModelConfig:
    """Heads of 32 for four of them, of 64 for two; by default no whole tile of inner activations."""
    return toy.config(hidden_size=128, num_attention_heads=heads, intermediate_size=inner, max_position_embeddings=512)


def encoder(name: str, made: ModelConfig) -> Encoder:
    """By the kernels; the same random numbers every time."""
    form = WHOLE if name == "float32" and kernels.lack_of_bfloat16(TWO_PARTS) else IN_BFLOAT16[name]
    need(form)
    own = toy.encoder(made, adapters=0.1)
    assert prepack(own, Precision(name)).why == BY_KERNELS[form]
    return own


@given(
    st.integers(1, 70),
    st.integers(1, 200),
    st.sampled_from([1, 2, 3, 4, 64, 130, 200]),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-20, 1.0, 1e20]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.parametrize("form", LOST)
def test_a_linear_is_its_formula(
    form: int, tokens: int, outputs: int, blocks: int, rank: int, seed: int, size: float
) -> None:
    """Any shape, also of inputs that are cut into pieces; all tasks and unknown ones in one pack."""
    torch.manual_seed(seed)
    plain, own = linear(16 * blocks, outputs, form, rank=rank)
    x = size * torch.randn(tokens, 16 * blocks)
    cut = int(torch.randint(tokens, ()))
    slices = tuple(s for s in (TaskSlice(seed % 6 - 1, 0, cut), TaskSlice(2, cut, tokens)) if s.start < s.stop)
    wanted, sizes = plain.double()(x.double(), slices), x.double().abs() @ plain.weight.double().abs().T
    terms = size * 16 * blocks * rank  # of tasks: float32, beside whole inputs
    assert ((own(x, slices) - wanted).abs() <= LOST[form] * sizes + 1e-6 * (1 + terms)).all()


def test_one_part_is_the_product_of_rounded_numbers() -> None:
    """Nothing is lost but in rounding inputs and weights once."""
    plain, own = linear(192, 70, ONE_PART)
    x = torch.randn(40, 192)
    slices = (TaskSlice(-1, 0, 40),)
    wanted = x.bfloat16().double() @ plain.weight.bfloat16().double().T + plain.bias.double()
    torch.testing.assert_close(own(x, slices).double(), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("inputs", [48, 2080])
def test_weights_that_were_bfloat16_need_no_second_part(inputs: int) -> None:
    """The same bits without it, for few tokens and for many."""
    layer = linear(inputs, 70, TWO_PARTS)[0]
    layer.weight.copy_(layer.weight.bfloat16())
    form = kernels.float_form(layer.weight, TWO_PARTS)
    assert form == TWO_BY_ONE and kernels.float_form(layer.weight * 1.1, TWO_PARTS) == TWO_PARTS
    packed = [kernels.pack_floats(layer.weight, f) for f in (form, TWO_PARTS)]
    assert 2 * len(packed[0].weight) == len(packed[1].weight)
    own, other = (KernelLinear(layer, p, kernels=kernels.Kernels()) for p in packed)
    for tokens in (5, 40):
        x = torch.randn(tokens, inputs)
        assert torch.equal(own(x, (TaskSlice(1, 0, tokens),)), other(x, (TaskSlice(1, 0, tokens),)))


def test_models_of_both_kinds_of_weights() -> None:
    """Some linears of an encoder with a second part and some without."""
    need(TWO_PARTS)
    both = toy.encoder(config(), adapters=0.1), toy.encoder(config(), adapters=0.1)
    for own in both:
        for layer in own.layers:
            layer.mlp.fc1.weight.copy_(layer.mlp.fc1.weight.bfloat16())
    plain, own = both
    prepack(own, Precision("float32"))
    assert own.layers[0].mlp.fc1.record.form != own.layers[0].mlp.fc2.record.form
    torch.testing.assert_close(own(toy.batch(LENGTHS)), plain(toy.batch(LENGTHS)), rtol=0, atol=2e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", [ONE_PART, TWO_PARTS, TWO_BY_ONE, WHOLE])
def test_what_is_not_finite_stays_so(value: float, form: int) -> None:
    """In its own row, and nowhere else, also where a row does not fill its tiles."""
    _, own = linear(48, 70, form)
    x = torch.randn(3, 48)
    x[1, 17] = value
    assert own(x, (TaskSlice(0, 0, 3),)).isfinite().all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("inner", [208, 2560])
def test_float32_is_that_of_torch(heads: int, inner: int) -> None:
    """All between the linears too: rotation, attention, GELU, norms, terms; inner activations in one piece and in more."""
    made, together = config(heads, inner), toy.batch(LENGTHS)
    exact = toy.encoder(made, adapters=0.1)
    wanted, found = exact(together), encoder("float32", made)(together)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-3)  # weights so large that errors grow with the layers
    assert 1 - cosine_similarity(found.double(), wanted.double()).min() < 1e-6
    coarse = exact.bfloat16()(together).float()
    assert (found - wanted).square().mean().sqrt() < (coarse - wanted).square().mean().sqrt() / 300


def test_bfloat16_is_nearer_to_float32_than_torch_s() -> None:
    made, together = config(), toy.batch(LENGTHS)
    exact = toy.encoder(made, adapters=0.1)
    wanted = exact(together)
    other, found = exact.bfloat16()(together).float(), encoder("bfloat16", made)(together)
    assert (found - wanted).square().mean() < (other - wanted).square().mean()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("heads", [2, 4])
def test_alone_is_the_same_bits_as_in_a_pack(name: str, heads: int) -> None:
    own, together = encoder(name, config(heads)), toy.batch(LENGTHS)
    words = own.embeddings(together)
    assert own.run is not None
    hidden = own.run(words, together)
    start = 0
    for length, task in zip(together.seqlens, together.task_ids, strict=True):
        rows = slice(start, start + length)
        assert torch.equal(own.run(words[rows], pack([toy.sequence([5] * length, task)])), hidden[rows])
        start += length


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    own, together = encoder(name, config(inner=2560)), toy.batch(LENGTHS)
    found = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.append(own(together))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_added_adapters_come_along() -> None:
    """Of a rank of their own, added before."""
    made, together = config(), pack([toy.sequence([5, 6, 7], 5)])
    both = toy.encoder(made, adapters=0.1), toy.encoder(made, adapters=0.1)
    for own in both:
        torch.manual_seed(1)
        own.layers[0].mlp.fc2.add_term(5, torch.randn(7, 208), torch.randn(128, 7))
    plain, own = both
    prepack(own, Precision("float32"))
    torch.testing.assert_close(own(together), plain(together), rtol=0, atol=1e-3)


def test_a_model_stored_in_bfloat16_computes_in_it() -> None:
    """Tensors and all; hidden states come in float32."""
    need(ONE_PART)
    own = toy.encoder(config(), adapters=0.1).bfloat16()
    precision = prepack(own, Precision("bfloat16"))
    hidden = TorchBackend(own, CPU, precision).hidden_states(toy.batch((5, 16)))
    assert hidden.dtype == torch.float32 and isinstance(own.run, KernelLayers)


def test_without_the_kernels_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor for models that do not fit them."""
    for own in (toy.encoder(), toy.encoder(toy.jinabert_config())):
        assert prepack(own, Precision("float32")).why == "" and own.run is None
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "none.so")
    own = toy.encoder(config())
    assert prepack(own, Precision("float32")).why == "" and own.run is None
