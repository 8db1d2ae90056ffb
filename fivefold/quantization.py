"""Layers for CPUs: matrices prepacked for oneDNN, linears and tables in 8 bits; and which of them a processor is good at.

A linear in 8 bits multiplies integers and scales their sum. A weight has a scale for each output (compact.py), made once. Each
token has a scale and a lowest value, made as it comes, so that its vector does not depend on its neighbours in the pack:
x = s q + l with q in 0..255, W = w Q by rows, and

    x W^T + b = s (q Q^T) w + b + l c + (x A^T) B^T      c [O]: the sum of each row of W; A, B: a task's low-rank term

There are two ways to compute this. Where our own kernels can run (kernels/), all layers are one call. Elsewhere a linear is
a few of torch's operators: one small product in float32 adds the lowest values and the term of a task, and the quantiser is
torch's for embedding tables: one pass, which leaves s and l in eight bytes behind each row. They are multiplied too, by columns
of zeros: that costs less than to cut them off.

Shapes: T tokens, O outputs, I inputs, V rows of a table, D its columns, R rank, N heads, H head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.errors import InputError
from fivefold.fused import KernelLayers, KernelLinear, floats_by_kernels, own_terms
from fivefold.kernels import (
    BYTES,
    ONE_PART,
    TWO_PARTS,
    WHOLE,
    Kernels,
    Pages,
    lack_of_bfloat16,
    lack_of_kernels,
    pack_codes,
    packed_size,
)
from fivefold.lora import LoRALayer, LoRALinear, TaskSlices
from fivefold.model import Encoder

Codes = tuple[Tensor, Tensor]
"""A matrix in 8 bits: codes int8 [O, I] and scales float32 [O]."""

FLOATS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
DTYPES = (*FLOATS, "int8", "auto")
"""What a model can be asked to compute in; `auto` becomes one of the others."""

INT8_FEATURES = ("avx512_vnni", "avx_vnni", "amx_int8")
"""With any of these torch multiplies bytes without overflow and fast enough to gain over float32."""
KERNEL_FEATURES = ("avx512_vnni", "avx2")
"""Any of these is enough for our own kernels."""
BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16")
INT8_OPERATORS = (
    ("onednn", "qlinear_prepack"),
    ("onednn", "qlinear_pointwise"),
    ("quantized", "embedding_bag_byte_prepack"),
)

TAIL = 8
"""Bytes that the quantiser puts behind a row: its scale and its lowest value, float32 both."""


@dataclass(frozen=True, slots=True)
class Precision:
    """What a model computes in: one of `DTYPES` but `auto`, and why that one where it was not simply asked for."""

    name: str
    why: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """Of what is in floating point."""
        return FLOATS.get(self.name, torch.float32)

    def describe(self) -> str:
        """The name, and the reason in brackets."""
        return f"{self.name} ({self.why})" if self.why else self.name


FLOAT32 = Precision("float32")
IN_BFLOAT16: Mapping[str, int] = {"float32": TWO_PARTS, "bfloat16": ONE_PART}
"""Form of the numbers that our own kernels multiply where the processor multiplies so many bfloat16."""
BY_KERNELS: Mapping[int, str] = {
    ONE_PART: "sums and all between products in float32",
    TWO_PARTS: "products of two bfloat16 for each number, which keep 16 bits of it",
    WHOLE: "by our own kernels",
}


def choose(name: str | None, device: torch.device, features: Mapping[str, object] | None = None) -> Precision:
    """What to compute in on a device, from the name that was asked for; `features` are those of this processor.

    Raises:
        InputError: there is no such name, or only CPUs compute in it.
    """
    if name is not None and name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}; choose one of: {', '.join(DTYPES)}")
    if device.type != "cpu":
        if name == "int8":
            raise InputError("dtype 'int8' is for CPUs; on a GPU use dtype='bfloat16', which is the default there")
        return Precision("bfloat16" if name in (None, "auto") else str(name), "a GPU" if name == "auto" else "")
    if name not in ("int8", "auto"):
        return Precision(name or "float32")
    has = processor() if features is None else features
    lack = _lack_of_int8(has)
    if not lack:
        feature = next(feature for feature in (*INT8_FEATURES, *KERNEL_FEATURES) if has.get(feature))
        slower = _lack_of_own(has)
        reasons = (
            "" if name == "int8" else f"the processor has {feature}",
            slower and f"by torch's operators: {slower}",
        )
        return Precision("int8", "; ".join(filter(None, reasons)))
    if name == "auto" and (feature := next((f for f in BFLOAT16_FEATURES if has.get(f)), "")):
        return Precision("bfloat16", f"the processor has {feature}, but {lack}")
    return Precision("float32", lack)


def processor() -> Mapping[str, object]:
    """What torch says of this processor, by name; nothing where this torch cannot say."""
    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def _lack_of_own(features: Mapping[str, object]) -> str:
    """Why our own kernels are not used; nothing where they are."""
    return lack_of_kernels() if any(map(features.get, KERNEL_FEATURES)) else "the processor has no avx2"


def _lack_of_int8(features: Mapping[str, object]) -> str:
    """Why linears in 8 bits would be wrong or slow here; nothing where they are good."""
    if not _lack_of_own(features):
        return ""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this build of torch has no oneDNN"
    for library, operator in INT8_OPERATORS:
        if not hasattr(getattr(torch.ops, library), operator):
            return f"this version of torch has no {library}.{operator}"
    return (
        "" if any(features.get(f) for f in INT8_FEATURES) else f"the processor has none of {', '.join(INT8_FEATURES)}"
    )


class PackedProduct:
    """A matrix in floating point, laid out for oneDNN once instead of at every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, I] -> x W^T + b [T, O]."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y


class Int8Linear(LoRALayer):
    """The same by torch's operators."""

    def __init__(self, linear: LoRALinear, codes: Tensor, scales: Tensor, *, order: Tensor | None = None) -> None:
        super().__init__()
        self.shape = linear.shape
        self.order = order
        bias = torch.zeros_like(scales) if linear.bias is None else linear.bias.detach()
        codes, self.scales, self.bias = (self._ordered(x) for x in (codes, scales, bias))
        self.zeros = torch.zeros(len(codes), dtype=torch.int32)
        self.sums = codes.sum(1) * self.scales  # [O]
        self.weight = torch.ops.onednn.qlinear_prepack(F.pad(codes, (0, TAIL)), None)
        self.sides: dict[int, tuple[Tensor, Tensor]] = {}
        for term in own_terms(linear):
            self.add_term(*term)

    def _ordered(self, rows: Tensor) -> Tensor:
        return rows if self.order is None else rows[self.order]

    def add_term(self, task_id: int, A: Tensor, B: Tensor) -> None:
        """A pair of any rank: A [R, I], B [O, R] with its scaling. The sums of rows stand before B."""
        # A copy: a library may add up in another order where memory lies differently.
        self.sides[task_id] = A.clone(), torch.cat((self.sums[None], self._ordered(B).T))

    def forward(self, x: Tensor, task_slices: TaskSlices) -> Tensor:
        """x [T, I] float32 -> [T, O]."""
        q = torch.ops.quantized.embedding_bag_byte_prepack(x)  # [T, I + 8]
        scale, low = q[:, -TAIL:].view(torch.float32).split(1, 1)  # [T, 1] both
        y = self.product(q)
        torch.addcmul(self.bias, y, scale, out=y)
        for s in task_slices:
            own, left, right = slice(s.start, s.stop), low[s.start : s.stop].T, self.sums[None]
            if s.task_id in self.sides:
                A, right = self.sides[s.task_id]
                left = torch.cat((left, A @ x[own].T))  # [1 + R, t]
            y[own].addmm_(left.T, right)
        return y

    def product(self, q: Tensor) -> Tensor:
        """q [T, I + 8] uint8 -> (q Q^T) w [T, O] float32."""
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            q, 1.0, 0, self.weight, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y


class Int8Lookup:
    """A table in 8 bits, from codes [V, D] and scales [V]: rows are widened when they are gathered."""

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        self.codes, self.scales = codes, scales

    def __call__(self, ids: Tensor) -> Tensor:
        """ids [T] -> [T, D] float32."""
        return self.codes.index_select(0, ids) * self.scales.index_select(0, ids)[:, None]


def paired_rows(heads: int, head_dim: int) -> Tensor:
    """Order of queries', keys' and values' rows [3 N H] in which entries that are rotated together are neighbours."""
    rows = torch.arange(3 * heads * head_dim).view(3, heads, 2, head_dim // 2)
    rows[:2] = rows[:2].transpose(2, 3).reshape(rows[:2].shape)
    return rows.flatten()


def prepack(encoder: Encoder, precision: Precision = FLOAT32) -> Precision:
    """Lay out the linears of a loaded encoder for this CPU, in place -> what it then computes in.

    By our own kernels where they can multiply such numbers and the model fits them; else float32 for oneDNN, where torch has
    it.
    """
    form = _form_of(precision.name)
    if form is not None and KernelLayers.fit(encoder.config):
        floats_by_kernels(encoder, form)
        return Precision(precision.name, "; ".join(filter(None, (precision.why, BY_KERNELS[form]))))
    if precision.name == "float32" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for layer in encoder.modules():
            if isinstance(layer, LoRALinear):
                layer.product = PackedProduct(layer.weight, layer.bias)
                del layer.weight
    return precision


def _form_of(name: str) -> int | None:
    """Of the numbers that our own kernels would multiply here, if they can."""
    form = IN_BFLOAT16.get(name)
    if form is not None and not lack_of_bfloat16(form):
        return form
    return WHOLE if name == "float32" and not lack_of_kernels() else None


def quantize(encoder: Encoder, codes: Callable[[str], Codes]) -> None:
    """Put matrices in 8 bits into an encoder whose own are not loaded; `codes` reads one by its tensor's name.

    Where torch rotates, rows of queries and keys are rearranged so that a rotation is one product of complex numbers.
    """
    config = encoder.config
    kernels = None if lack_of_kernels() else Kernels()
    whole = kernels is not None and KernelLayers.fit(config)
    encoder.paired = config.position_embedding_type == "rotary" and not whole
    order = paired_rows(config.num_attention_heads, config.head_dim) if encoder.paired else None
    linears = [(path, layer) for path, layer in encoder.named_modules() if isinstance(layer, LoRALinear)]
    size = sum(packed_size(*layer.shape, BYTES) for _, layer in linears)
    own = None if kernels is None else Room(kernels, Pages(size))
    for path, layer in linears:
        turned = order if path.endswith("Wqkv") else None
        encoder.set_submodule(path, _int8(layer, *codes(f"{path}.weight"), own=own, order=turned))
    if kernels is not None and whole:
        encoder.run = KernelLayers(encoder, kernels)
    words = encoder.embeddings.word_embeddings
    words.lookup = Int8Lookup(*codes("embeddings.word_embeddings.weight"))
    del words.weight
    if words.lora_A is not None:  # a column for each word and task: bfloat16, as the release has it
        words.lora_A = nn.Parameter(words.lora_A.bfloat16(), requires_grad=False)


@dataclass(frozen=True, slots=True)
class Room:
    """Our own kernels and memory for all that they multiply by."""

    kernels: Kernels
    pages: Pages


def _int8(layer: LoRALinear, codes: Tensor, scales: Tensor, *, own: Room | None, order: Tensor | None) -> LoRALayer:
    if own is None:
        return Int8Linear(layer, codes, scales, order=order)
    codes, scales = (x if order is None else x[order] for x in (codes, scales))
    return KernelLinear(layer, pack_codes(codes, scales, own.pages), kernels=own.kernels, order=order)


def quantized_names(encoder: Encoder) -> set[str]:
    """Names of the matrices that `quantize` reads."""
    linears = {f"{path}.weight" for path, layer in encoder.named_modules() if isinstance(layer, LoRALinear)}
    return {"embeddings.word_embeddings.weight", *linears}
