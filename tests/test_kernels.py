"""kernels/: the library against float64, in wild shapes; the same bits in any pack and for any number of threads."""

from __future__ import annotations

import ctypes.util
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fivefold import kernels
from fivefold.compact import INT8
from fivefold.config import ModelConfig
from fivefold.fused import KernelLayers, KernelLinear
from fivefold.lora import LoRALinear
from fivefold.model import Encoder
from fivefold.packing import TaskSlice, pack
from fivefold.quantization import INT8_FEATURES, Int8Lookup, lack_of_kernels, processor, quantize
from hatch_build import compile_kernels, wheel_tag
from tests import toy

pytestmark = pytest.mark.usefixtures("library", "threads", "vectors")
LENGTHS = (1, 5, 16, 17, 63, 64, 65, 255, 256, 257, 300)
"""Around the kernels' tiles, panels and blocks of keys."""


Use = Callable[[str], bool]
"""Whether the processor has what was named, which is used from now on."""


@pytest.fixture(params=["AMX", "AVX512-BF16", "neither"])
def use(vectors: str, request: pytest.FixtureRequest) -> Iterator[Use]:
    """With AMX, with vectors of bfloat16 in attention, and without both."""
    opened = kernels.Kernels()

    def choose(name: str) -> bool:
        wanted = name == "AMX", name == "AVX512-BF16"
        return (opened.use_tiles(wanted[0]), opened.use_pairs(wanted[1])) == wanted

    if not choose(request.param):
        pytest.skip(f"the processor has no {request.param}")
    yield choose
    opened.use_tiles(True)
    opened.use_pairs(True)


def linear(inputs: int, outputs: int, *, tasks: int = 3, rank: int = 4) -> tuple[LoRALinear, KernelLinear]:
    """A random one, and the same in 8 bits."""
    layer = LoRALinear(inputs, outputs, tasks=tasks, rank=rank, scaling=0.25).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.normal_()
    return layer, KernelLinear(layer, kernels.pack_codes(*INT8.encode(layer.weight)), kernels=kernels.Kernels())


def expected(layer: LoRALinear, x: torch.Tensor, slices: tuple[TaskSlice, ...]) -> torch.Tensor:
    """The formula in float64, with activations and weights rounded."""
    wide, low = x.double(), x.double().amin(1, keepdim=True)
    step = (wide.amax(1, keepdim=True) - low) / 255
    rounded = torch.where(step > 0, ((wide - low) / step).round() * step, 0) + low
    codes, scales = (part.double() for part in INT8.encode(layer.weight))
    y = rounded @ (codes * scales[:, None]).T + layer.bias
    for tokens, A, B, scaling in layer.terms(slices):
        y[tokens] += scaling * (wide[tokens] @ A.double().T) @ B.double().T
    return y


def encoder(config: ModelConfig) -> Encoder:
    """In 8 bits, in eval mode; the same random numbers every time."""
    torch.manual_seed(0)
    made = toy.encoder(config, adapters=0.1)
    tensors = dict(made.state_dict())
    quantize(made, lambda name: INT8.encode(tensors[name]))
    return made


def config(heads: int = 4) -> ModelConfig:
    """Heads of 32 for four of them, of 64 for two."""
    return toy.config(hidden_size=128, num_attention_heads=heads, intermediate_size=208, max_position_embeddings=512)


@given(
    st.integers(1, 40),
    st.integers(1, 200),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e6]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_linear_is_its_formula(tokens: int, outputs: int, blocks: int, rank: int, seed: int, size: float) -> None:
    """Any shape, all tasks and unknown ones in one pack; but for inputs that fall on the other side of a rounding."""
    torch.manual_seed(seed)
    plain, own = linear(16 * blocks, outputs, rank=rank)
    x = size * torch.randn(tokens, 16 * blocks)
    cut = int(torch.randint(tokens, ()))
    slices = tuple(s for s in (TaskSlice(seed % 6 - 1, 0, cut), TaskSlice(2, cut, tokens)) if s.start < s.stop)
    found, wanted = own(x, slices), expected(plain, x, slices)
    flipped = (x.amax(1) - x.amin(1))[:, None] / 255 * plain.weight.abs().amax()  # one input by one code
    assert ((found - wanted).abs() <= flipped + 1e-4 * size + 1e-5 * (1 + wanted.abs())).all()


@pytest.mark.parametrize("use", ["AMX"], indirect=True)
@pytest.mark.parametrize("inputs", [64, 192, 1024])
def test_tiles_give_linears_the_same_bits(inputs: int, use: Use) -> None:
    """Around 16 and 32 tokens and the ends of panels, and across units of 384 tokens."""
    made = [linear(inputs, outputs)[1] for outputs in (1, 64, 130)]
    packs = [torch.randn(tokens, inputs) for tokens in (1, 15, 16, 17, 31, 32, 33, 48, 49, 383, 400, 417)]
    runs = [(own, x, (TaskSlice(1, 0, len(x)),)) for own in made for x in packs]
    found = [own(x, slices) for own, x, slices in runs]
    use("neither")
    assert all(torch.equal(own(x, slices), y) for (own, x, slices), y in zip(runs, found, strict=True))


@pytest.mark.parametrize("value", [0.0, -3.5, 1e30])
def test_rows_of_one_value(value: float) -> None:
    """They have no range to divide by."""
    plain, own = linear(64, 70)
    x = torch.full((2, 64), value)
    slices = (TaskSlice(-1, 0, 2),)
    torch.testing.assert_close(
        own(x, slices).double(), expected(plain, x, slices), rtol=1e-4, atol=1e-5 * (1 + abs(value))
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    """In its own row, and nowhere else."""
    _, own = linear(64, 70)
    x = torch.randn(3, 64)
    x[1, 17] = value
    finite = own(x, (TaskSlice(0, 0, 3),)).isfinite().all(1)
    assert finite.tolist() == [True, False, True]


def test_a_term_can_be_added_afterwards() -> None:
    """Of a rank that the others do not have; a task between two that have terms may have none."""
    plain, own = linear(32, 24)
    x, A, B = torch.randn(5, 32), torch.randn(7, 32), torch.randn(24, 7)
    for layer in (plain, own):
        layer.add_term(5, A, B)
    for task in (4, 5):
        slices = (TaskSlice(task, 0, 5),)
        torch.testing.assert_close(own(x, slices).double(), expected(plain, x, slices), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("use")
@pytest.mark.parametrize("use", ["neither"], indirect=True)
@pytest.mark.parametrize("heads", [2, 4])
def test_layers_are_those_of_torch_operators(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention, rotation, GELU, norms and terms: one call against the model's own layers over the same rounded linears."""
    own = encoder(config(heads))
    assert isinstance(own.run, KernelLayers)
    found = own(toy.batch(LENGTHS))
    own.run = None  # the layers one by one, attention by torch
    torch.testing.assert_close(found, own(toy.batch(LENGTHS)), rtol=0, atol=0.2)
    assert F.cosine_similarity(found, own(toy.batch(LENGTHS))).min() > 0.999
    close = (found - own(toy.batch(LENGTHS))).abs().median()
    assert close < 0.01


@pytest.mark.parametrize("use", ["AMX", "AVX512-BF16"], indirect=True)
@pytest.mark.parametrize("heads", [2, 4])
def test_attention_in_bfloat16_costs_no_accuracy(heads: int, use: Use) -> None:
    """Of every length: no further from float32 than 8 bits are without, whose roundings fall differently."""
    torch.manual_seed(0)
    together = toy.batch(LENGTHS)
    wanted, own = toy.encoder(config(heads), adapters=0.1)(together), encoder(config(heads))
    found = own(together)
    use("neither")
    other = own(together)
    assert not torch.equal(found, other)
    for length, *rows in zip(
        together.seqlens, *(x.split(together.seqlens) for x in (wanted, found, other)), strict=True
    ):
        exact, in_bfloat16, in_float32 = rows
        ratio = (in_bfloat16 - exact).square().mean() / (in_float32 - exact).square().mean()
        assert ratio < (1.5 if length > 60 else 3), (length, ratio)  # a key too few or too many makes it a hundred


@pytest.mark.usefixtures("use")
@pytest.mark.parametrize("heads", [2, 4])
def test_alone_is_the_same_bits_as_in_a_pack(heads: int) -> None:
    own, together = encoder(config(heads)), toy.batch(LENGTHS)
    words = own.embeddings(together)
    assert own.run is not None
    hidden = own.run(words, together)
    start = 0
    for length, task in zip(together.seqlens, together.task_ids, strict=True):
        rows = slice(start, start + length)
        alone = pack([toy.sequence([5] * length, task)])
        assert torch.equal(own.run(words[rows], alone), hidden[rows])
        start += length


@pytest.mark.usefixtures("use")
def test_from_words_on_alone_is_the_same_bits_as_in_a_pack() -> None:
    """With what tasks make of the words."""
    own, together = encoder(config()), toy.batch(LENGTHS)
    with torch.inference_mode():
        hidden = own(together).split(together.seqlens)
        for text, found in zip(toy.sequences(LENGTHS), hidden, strict=True):
            assert torch.equal(own(pack([text])), found)


@pytest.mark.usefixtures("use")
def test_any_number_of_threads_gives_the_same_bits() -> None:
    own, together = encoder(config()), toy.batch(LENGTHS)
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(own(together))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_many_callers_at_one_time() -> None:
    """Four threads, each with packs of its own and a team of its own."""
    own = encoder(config())
    packs = [toy.batch(LENGTHS[i:]) for i in range(4)]
    alone = [own(each) for each in packs]

    def call(i: int) -> torch.Tensor:
        torch.set_num_threads(2)
        return own(packs[i % 4])

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(call, range(32)))
    assert all(torch.equal(found, alone[i % 4]) for i, found in enumerate(together))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_goes_on() -> None:
    """No thread is left from a call that a child would wait for."""
    own, x = linear(64, 64)[1], torch.randn(40, 64)
    torch.set_num_threads(2)
    wanted = own(x, (TaskSlice(0, 0, 40),))
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(own(x, (TaskSlice(0, 0, 40),)), wanted) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("inputs", [64, 192, 1024])
def test_vectors_of_both_widths_give_linears_the_same_bits(inputs: int, vectors: str) -> None:
    """Around the six tokens, blocks of 48 and units of 256 that are summed together."""
    opened = kernels.Kernels()
    if vectors != "avx512":
        pytest.skip("that is one of them")
    opened.use_tiles(False)
    packs = [torch.randn(tokens, inputs) for tokens in (1, 5, 6, 7, 47, 48, 49, 255, 300)]
    runs = [(linear(inputs, outputs)[1], x, (TaskSlice(1, 0, len(x)),)) for outputs in (1, 64, 130) for x in packs]
    found = [own(x, slices) for own, x, slices in runs]
    opened.use_wide(False)
    assert all(torch.equal(own(x, slices), y) for (own, x, slices), y in zip(runs, found, strict=True))
    opened.use_tiles(True)


@pytest.mark.skipif(not any(map(processor().get, INT8_FEATURES)), reason="torch's products of bytes overflow here")
@pytest.mark.usefixtures("use")
@pytest.mark.parametrize("use", ["neither"], indirect=True)
def test_a_missing_library_is_told_and_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The model then runs on torch's operators, and its vectors hardly differ."""
    own = encoder(config())
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "none.so")
    assert "C compiler" in lack_of_kernels()
    other = encoder(config())
    assert other.run is None and own.run is not None
    short = toy.batch((5, 16, 17))
    assert F.cosine_similarity(own(short), other(short)).min() > 0.999


def test_a_library_of_another_version_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that lacks a function, as an older one does: any library of the system."""
    monkeypatch.setattr(kernels, "LIBRARY", ctypes.util.find_library("c"))
    assert "this version" in lack_of_kernels()


def test_models_with_other_parts_keep_their_own_layers() -> None:
    """Heads of 8, ALiBi, gates: the linears alone are by the kernels."""
    for made in (toy.config(), toy.jinabert_config()):
        own = encoder(made)
        assert own.run is None and any(isinstance(layer, KernelLinear) for layer in own.modules())
        assert isinstance(own.embeddings.word_embeddings.lookup, Int8Lookup)


def test_a_compiler_that_is_missing_or_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no-such-compiler" in compile_kernels(tmp_path / "a.so")
    if shutil.which("false"):
        monkeypatch.setenv("CC", "false")
        assert "failed" in compile_kernels(tmp_path / "a.so")
    assert not list(tmp_path.iterdir())


def test_a_wheel_is_for_a_system_and_any_python() -> None:
    assert wheel_tag().startswith("py3-none-") and "x86_64" in wheel_tag()
