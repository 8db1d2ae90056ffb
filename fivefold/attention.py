"""Rotary positions and variable-length attention: one signature, its kernels behind it.

Shapes: T tokens in the pack, N heads, H head dim, B sequences, L tokens of one sequence. Every kernel takes q, k, v
[T, N, H] and attends within each sequence only, in both directions, with scale H ** -0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

from fivefold.packing import PackedBatch

Kernel = Callable[[Tensor, Tensor, Tensor, PackedBatch], Tensor]


def rotary_tables(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, 1, H/2] of the rotation angles, computed in float32 and cast last.

    Frequencies are base ** (-2j / H), j = 0 .. H/2 - 1 (Su et al. 2021, arXiv 2104.09864, equation 15).
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.float()[:, None] * (1.0 / base**exponent)  # [T, H/2]
    return angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [T, N, H] by its position; half-split pairing: dimension j turns with j + H/2."""
    a, b = x.chunk(2, dim=-1)  # [T, N, H/2] each
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def reference(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch) -> Tensor:
    """Softmax written out, one sequence at a time: slow, O(L^2) memory, for tests."""
    out = torch.empty_like(q)
    for start, stop in zip(batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True):
        scores = torch.einsum("inh,jnh->nij", q[start:stop], k[start:stop]) * q.shape[-1] ** -0.5
        out[start:stop] = torch.einsum("nij,jnh->inh", scores.softmax(-1), v[start:stop])
    return out


def grouped_sdpa(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch) -> Tensor:
    """One `scaled_dot_product_attention` for each run of neighbours of equal length: no padding, no mask.

    Packs are ordered by length, so runs are long; the fused kernel keeps memory linear in L.
    """
    outs = []
    groups = [(length, len(list(run))) for length, run in groupby(batch.seqlens)]
    sizes = [length * count for length, count in groups]
    # split, not slices: its backward is one concatenation, where every slice would fill a whole tensor
    for (length, _), *parts in zip(groups, *(torch.split(x, sizes) for x in (q, k, v)), strict=True):
        # [n L, N, H] -> [n, N, L, H], views only
        q_n, k_n, v_n = (x.view(-1, length, *x.shape[1:]).transpose(1, 2) for x in parts)
        out = F.scaled_dot_product_attention(q_n, k_n, v_n)
        outs.append(out.transpose(1, 2).reshape(-1, *q.shape[1:]))
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def varlen_flash(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch) -> Tensor:
    """The GPU kernel that reads `cu_seqlens` itself; half precision only."""
    from torch.nn.attention.varlen import varlen_attn  # torch >= 2.10, loads CUDA kernels

    n = batch.max_seqlen
    out = varlen_attn(q, k, v, batch.cu_seqlens, batch.cu_seqlens, n, n)
    assert isinstance(out, Tensor), "varlen_attn returns a tuple only where more than the output is asked for"
    return out


KERNELS: dict[str, Kernel] = {"reference": reference, "sdpa": grouped_sdpa, "varlen": varlen_flash}


def kernel_for(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel of choice: varlen flash on CUDA in half precision, grouped SDPA everywhere else."""
    half = dtype in (torch.float16, torch.bfloat16)
    return varlen_flash if device.type == "cuda" and half else grouped_sdpa


def attention(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, kernel: str | None = None) -> Tensor:
    """Attend within each sequence of the pack: q, k, v [T, N, H] -> [T, N, H]; `kernel` names one, for tests."""
    chosen = KERNELS[kernel] if kernel else kernel_for(q.device, q.dtype)
    return chosen(q, k, v, batch)
