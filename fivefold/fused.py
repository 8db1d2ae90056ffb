"""Linears and whole encoders by our own kernels (kernels/): modules and what the kernels are told of them.

Shapes: T tokens, O outputs, I inputs, D hidden, R rank, P as in kernels/.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.attention import rotary_tables
from fivefold.config import NO_TASK, ModelConfig
from fivefold.kernels import (
    LANES,
    EncoderRecord,
    Kernels,
    LayerRecord,
    LinearRecord,
    NormRecord,
    Packed,
    PackRecord,
    Pages,
    TermRecord,
    fill,
    float_form,
    pack_floats,
    packed_size,
)
from fivefold.lora import LoRALayer, LoRALinear, TaskSlices
from fivefold.model import Block, Encoder
from fivefold.packing import PackedBatch


def own_terms(linear: LoRALinear) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Task, A [R, I] and B [O, R], scaling included, float32, of all that a linear has: in its banks and beside them."""
    banks = range(0 if linear.lora_A is None else len(linear.lora_A))
    for task_id in (*banks, *map(int, linear.added)):
        found = linear.term(task_id)
        assert found is not None
        A, B, scaling = found
        yield task_id, A.detach().float(), scaling * B.detach().float()


class KernelLinear(LoRALayer):
    """A linear by our own kernels, of a plain one and its packed matrix; `order` [O] is that of its rows, where they moved.

    Inputs that are no multiple of what the kernels take at a time are filled up with the first, which changes no range, and
    columns of the matrix with zeros.
    """

    def __init__(self, linear: LoRALinear, packed: Packed, *, kernels: Kernels, order: Tensor | None = None) -> None:
        super().__init__()
        self.shape = linear.shape
        self.kernels = kernels
        self.order = torch.arange(self.shape[0]) if order is None else order
        bias = torch.zeros(self.shape[0]) if linear.bias is None else linear.bias[self.order]
        rows = packed.scales, bias, packed.sums
        self.rows = tuple(None if x is None else fill(x) for x in rows)  # [P] each
        self.weight = packed.weight
        self.sides: dict[int, tuple[Tensor, Tensor]] = {}
        """A [R, I] and B^T [R, P] by task."""
        pointers = (None if x is None else x.data_ptr() for x in (self.weight, *self.rows))
        self.filled = -self.shape[1] % LANES
        self.record = LinearRecord(self.shape[1] + self.filled, self.shape[0], packed.form, *pointers)
        for term in own_terms(linear):
            self.add_term(*term)

    def add_term(self, task_id: int, A: Tensor, B: Tensor) -> None:
        """A pair of any rank: A [R, I], B [O, R] with its scaling."""
        self.sides[task_id] = F.pad(A.float(), (0, self.filled)).contiguous(), fill(B[self.order].T)
        terms = (TermRecord * (1 + max(self.sides)))()  # rank 0 where nothing is put
        for task, (down, up) in self.sides.items():
            terms[task] = TermRecord(len(down), down.data_ptr(), up.data_ptr())
        self.record.terms, self.record.tasks = terms, len(terms)

    def forward(self, x: Tensor, task_slices: TaskSlices) -> Tensor:
        """x [T, I] float32 -> [T, O]."""
        if self.filled:
            x = torch.cat([x, x[:, :1].expand(-1, self.filled)], 1)
        return self.kernels.linear(self.record, task_of_each(task_slices), x)


def task_of_each(task_slices: TaskSlices) -> Tensor:
    """Task ids of all tokens: [T] int32."""
    tasks = torch.full((task_slices[-1].stop,), NO_TASK, dtype=torch.int32)
    for s in task_slices:
        tasks[s.start : s.stop] = s.task_id
    return tasks


class KernelLayers:
    """All layers of an encoder whose linears are `KernelLinear`, in one call."""

    def __init__(self, encoder: Encoder, kernels: Kernels) -> None:
        self.config, self.kernels = encoder.config, kernels
        self.blocks = list(encoder.layers)
        self.kept: list[Tensor] = []
        """The records point at tensors of these two."""
        records = (LayerRecord * len(self.blocks))(*map(self._record, self.blocks))
        config = encoder.config
        self.record = EncoderRecord(
            len(records), config.hidden_size, config.intermediate_size, config.num_attention_heads, records
        )

    @staticmethod
    def fit(config: ModelConfig) -> bool:
        """Whether the kernels have all that such a model does between its linears."""
        plain = config.position_embedding_type == "rotary" and not config.gated and not config.qk_post_norm
        whole = config.hidden_size % LANES == 0 == config.intermediate_size % LANES
        return plain and whole and config.head_dim in (32, 64)

    def __call__(self, x: Tensor, batch: PackedBatch) -> Tensor:
        """x [T, D] -> hidden states [T, D] after the last layer, float32."""
        config, tasks, starts = self.config, task_of_each(batch.task_slices), batch.cu_seqlens
        places = torch.arange(batch.max_seqlen)
        cosines, sines = rotary_tables(places, config.head_dim, config.rotary_emb_base, torch.float32)
        pointers = (tensor.data_ptr() for tensor in (starts, tasks, cosines, sines))
        hidden = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        self.kernels.encode(self.record, PackRecord(len(batch.seqlens), len(x), *pointers), hidden)
        return hidden

    def _record(self, block: nn.Module) -> LayerRecord:
        assert isinstance(block, Block)
        linears = []
        for name in ("attention.Wqkv", "attention.out_proj", "mlp.fc1", "mlp.fc2"):
            linear = block.get_submodule(name)
            assert isinstance(linear, KernelLinear)
            linears.append(ctypes.pointer(linear.record))
        return LayerRecord(*linears, self._norm(block.norm1), self._norm(block.norm2))

    def _norm(self, norm: nn.LayerNorm) -> NormRecord:
        weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
        self.kept += [weight, bias]
        return NormRecord(weight.data_ptr(), bias.data_ptr(), norm.eps)


def floats_by_kernels(encoder: Encoder, parts: int) -> None:
    """Put linears of so many bfloat16 for each number, or float32 (`WHOLE`), into a loaded encoder that `KernelLayers.fit`s, in
    place."""
    kernels = Kernels()
    linears = [(path, layer) for path, layer in encoder.named_modules() if isinstance(layer, LoRALinear)]
    forms = {path: float_form(layer.weight, parts) for path, layer in linears}
    pages = Pages(sum(packed_size(*layer.shape, forms[path]) for path, layer in linears))
    for path, layer in linears:
        own = KernelLinear(layer, pack_floats(layer.weight, forms[path], pages), kernels=kernels)
        del layer.weight
        encoder.set_submodule(path, own)
    encoder.run = KernelLayers(encoder, kernels)
