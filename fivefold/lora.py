"""Low-rank task terms on linears and embeddings, routed by contiguous task slices.

A layer computes its plain output once for the whole pack and then adds, for each task slice, that task's low-rank term.
Nothing of the weight's own size is ever formed, there is no mask per row and no "active adapter", so one forward serves
any mix of tasks from any number of threads. `merge_task` is the other way round: one task folded into the weights,
once. The banks hold the checkpoint's own tasks; `add_term` puts a term of any rank beside them, for one more.

Formulas (Hu et al. 2021, arXiv 2106.09685), scaling s = alpha / rank, task t:
    linear      y = x W^T + b + s (x A_t^T) B_t^T        A [K, R, in],   B [K, out, R]
    embedding   y = W[ids] + s A_t[ids] B_t              A [K, rows, R], B [K, R, dim]

Shapes: T tokens in the pack, K tasks, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.errors import InputError
from fivefold.packing import TaskSlice

TaskSlices = tuple[TaskSlice, ...]
Product = Callable[[Tensor], Tensor]
"""x [T, in] -> x W^T + b [T, out], or ids [T] -> rows [T, dim]."""


def _bank(*shape: int) -> nn.Parameter | None:
    return nn.Parameter(torch.empty(shape)) if shape[0] else None


class Term(nn.Module):
    """The low-rank pair of a task beside the banks, its scaling within B: it moves with the model and is not saved with it."""

    A: Tensor
    B: Tensor

    def __init__(self, A: Tensor, B: Tensor) -> None:
        super().__init__()
        self.register_buffer("A", A, persistent=False)
        self.register_buffer("B", B, persistent=False)


class LoRALayer(nn.Module):
    """What adapted layers have: banks, and terms beside them. `shape` is that of the matrix, [out, in] or [rows, dim]."""

    shape: tuple[int, int]
    lora_A: nn.Parameter | None
    lora_B: nn.Parameter | None
    scaling: float

    def __init__(self) -> None:
        super().__init__()
        self.added = nn.ModuleDict()

    def add_term(self, task_id: int, A: Tensor, B: Tensor) -> None:
        """A pair of any rank for a task that the banks do not have, in their orientation, its scaling within B."""
        self.added[str(task_id)] = Term(A, B)

    def term(self, task_id: int) -> tuple[Tensor, Tensor, float] | None:
        """A, B and scaling of a task, or `None` where it leaves this layer alone."""
        if str(task_id) in self.added:
            pair = self.added[str(task_id)]
            assert isinstance(pair, Term)
            return pair.A, pair.B, 1.0
        if self.lora_A is None or self.lora_B is None or not 0 <= task_id < len(self.lora_A):
            return None
        return self.lora_A[task_id], self.lora_B[task_id], self.scaling

    def terms(self, task_slices: TaskSlices) -> Iterator[tuple[slice, Tensor, Tensor, float]]:
        """Token range, A, B and scaling of every slice that is adapted here."""
        for s in task_slices:
            found = self.term(s.task_id)
            if found is not None:
                yield slice(s.start, s.stop), *found

    def merge_task(self, task_id: int) -> None:
        """Fold one task into the matrix, where there is one of floating point numbers."""
        raise InputError(
            "a model in this precision cannot take an adapter into its weights; load it with dtype='float32'"
        )

    def drop_terms(self) -> None:
        """No adapters from here on."""
        self.lora_A = self.lora_B = None
        self.added.clear()


class LoRALinear(LoRALayer):
    """A linear layer with one low-rank term for each of `tasks` tasks; zero tasks make it a plain linear."""

    def __init__(
        self, in_features: int, out_features: int, *, tasks: int, rank: int, scaling: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.shape = (out_features, in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.lora_A = _bank(tasks, rank, in_features)
        self.lora_B = _bank(tasks, out_features, rank)
        self.scaling = scaling
        self.product: Product | None = None
        """The matrix in another form (quantization.py), which then has no `weight`."""

    def forward(self, x: Tensor, task_slices: TaskSlices) -> Tensor:
        """x [T, in] -> [T, out]."""
        y = F.linear(x, self.weight, self.bias) if self.product is None else self.product(x)
        for tokens, A, B, scaling in self.terms(task_slices):
            y[tokens].addmm_(
                (A @ x[tokens].T).T, B.T.to(y.dtype), alpha=scaling
            )  # [t, R] [R, out]; BLAS is slow at [t, in] [in, R], and autocast narrows y
        return y

    @torch.no_grad()
    def merge_task(self, task_id: int) -> None:
        """Fold one task into the weight and drop the banks: W + s B A, computed in float32."""
        if self.product is not None:
            super().merge_task(task_id)
        found = self.term(task_id)
        if found is not None:
            A, B, scaling = found
            self.weight = _merged(self.weight, B.float() @ A.float(), scaling)
        self.drop_terms()

    @torch.no_grad()
    def reset_lora(self) -> None:
        """Start values of a fresh adapter, which changes nothing yet: A Kaiming-uniform, B zero."""
        if self.lora_A is not None and self.lora_B is not None:
            for bank in self.lora_A:
                nn.init.kaiming_uniform_(bank, a=math.sqrt(5))
            self.lora_B.zero_()


class LoRAEmbedding(LoRALayer):
    """An embedding table with one low-rank term for each task; rows are gathered first, then adapted."""

    def __init__(self, rows: int, dim: int, *, tasks: int, rank: int, scaling: float) -> None:
        super().__init__()
        self.shape = (rows, dim)
        self.weight = nn.Parameter(torch.empty(rows, dim))
        self.lora_A = _bank(tasks, rows, rank)
        self.lora_B = _bank(tasks, rank, dim)
        self.scaling = scaling
        self.lookup: Product | None = None
        """The table in another form (quantization.py), which then has no `weight`."""

    def forward(self, ids: Tensor, task_slices: TaskSlices) -> Tensor:
        """ids [T] -> [T, dim]."""
        y = F.embedding(ids, self.weight) if self.lookup is None else self.lookup(ids)
        for tokens, A, B, scaling in self.terms(task_slices):
            _add_product(y[tokens], F.embedding(ids[tokens], A).to(y), B, scaling)
        return y

    @torch.no_grad()
    def merge_task(self, task_id: int) -> None:
        """Fold one task into the table and drop the banks: W + s A B, computed in float32."""
        if self.lookup is not None:
            super().merge_task(task_id)
        found = self.term(task_id)
        if found is not None:
            A, B, scaling = found
            self.weight = _merged(self.weight, A.float() @ B.float(), scaling)
        self.drop_terms()

    @torch.no_grad()
    def reset_lora(self) -> None:
        """Start values of a fresh adapter, as the release has them for tables: A zero, B normal."""
        if self.lora_A is not None and self.lora_B is not None:
            self.lora_A.zero_()
            nn.init.normal_(self.lora_B)


def _add_product(y: Tensor, left: Tensor, right: Tensor, scaling: float) -> None:
    """y [t, D] += scaling left [t, R] right [R, D], in place.

    A library's product on a CPU may add up in another order for another t, and vectors are to be the same bits in any batch:
    so there it is done rank by rank, in the one order there is.
    """
    if y.device.type == "cpu" and y.dtype == torch.float32 and not torch.is_grad_enabled():
        for factor, row in zip(left.T, right, strict=True):
            y.addcmul_(factor[:, None], row, value=scaling)
    else:
        y.addmm_(left, right, alpha=scaling)


def _merged(weight: Tensor, delta: Tensor, scaling: float) -> nn.Parameter:
    merged = (weight.float() + scaling * delta).to(weight.dtype)
    return nn.Parameter(merged, requires_grad=weight.requires_grad)


def merge_task(model: nn.Module, task_id: int) -> None:
    """Fold one task into every adapted layer of `model`, in place; `NO_TASK` just drops the adapters."""
    for module in model.modules():
        if isinstance(module, LoRALayer):
            module.merge_task(task_id)
