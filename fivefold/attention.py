"""Rotary positions, ALiBi, and variable-length attention: one signature, its kernels behind it.

Shapes: T tokens in the pack, N heads, H head dim, B sequences, L tokens of one sequence, M of the longest, n sequences
of one length. Every kernel takes q, k, v [T, N, H] and attends within each sequence only, in both directions, with scale
H ** -0.5. A bias by distance [N, 2M - 1] is added to the scores where there is one: column M - 1 + d holds what a query
gives the key d places after it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

from fivefold.packing import PackedBatch

Kernel = Callable[[Tensor, Tensor, Tensor, PackedBatch, Tensor | None], Tensor]

MAX_BIASES = 2**25
"""Numbers of a bias that are held at a time where a kernel wants them in memory."""


def rotary_tables(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, 1, H/2] of the rotation angles, computed in float32 and cast last.

    Frequencies are base ** (-2j / H), j = 0 .. H/2 - 1 (Su et al. 2021, arXiv 2104.09864, equation 15).
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.float()[:, None] * (1.0 / base**exponent)  # [T, H/2]
    return angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [T, N, H] by its position; half-split pairing: dimension j turns with j + H/2.

    Under autocast the tables are wider than x, whose precision is kept.
    """
    a, b = x.chunk(2, dim=-1)  # [T, N, H/2] each
    turned = torch.cat((torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)), dim=-1)
    return turned.to(x.dtype)


def apply_turns(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate x [T, N, H] whose dimensions 2j and 2j + 1 turn together, by unit complex numbers [T, 1, H/2]."""
    pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))  # [T, N, H/2]
    return torch.view_as_real(pairs * turns).flatten(-2)


def alibi_slopes(heads: int) -> list[float]:
    """Each head's slope (Press et al. 2022, arXiv 2108.12409): 2^(-8/N), 2^(-16/N), ... for a power of two.

    Other numbers take the list of the largest power of two below, then every second slope of the list of the next.
    """
    below = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * i / below) for i in range(1, below + 1)]
    between = [2.0 ** (-4 * i / below) for i in range(1, 2 * below, 2)]
    return (slopes + between)[:heads]


def alibi_bias(heads: int, max_seqlen: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Symmetric ALiBi as a bias by distance: -slope |d|, [N, 2M - 1], computed in float32 and cast last."""
    distance = torch.arange(1 - max_seqlen, max_seqlen, device=device).abs()
    return (torch.tensor(alibi_slopes(heads), device=device)[:, None] * -distance).to(dtype)


def reversed_rows(bias: Tensor, length: int) -> Tensor:
    """The bias of every pair of L tokens, last query first: [N, 2M - 1] -> [1, N, L, L], a view.

    From the last query to the first, each row begins one column further on, so nothing of size L^2 is ever formed.
    """
    first = bias.shape[1] // 2 + 1 - length
    return bias[:, first:].as_strided((1, len(bias), length, length), (0, bias.stride(0), 1, 1))


def reference(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, bias: Tensor | None = None) -> Tensor:
    """Softmax written out, one sequence at a time: slow, O(L^2) memory, for tests."""
    out = torch.empty_like(q)
    for start, stop in zip(batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True):
        scores = torch.einsum("inh,jnh->nij", q[start:stop], k[start:stop]) * q.shape[-1] ** -0.5
        if bias is not None:
            at = torch.arange(stop - start, device=q.device)
            scores = scores + bias[:, at - at[:, None] + bias.shape[1] // 2]
        out[start:stop] = torch.einsum("nij,jnh->inh", scores.softmax(-1), v[start:stop])
    return out


def grouped_sdpa(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, bias: Tensor | None = None) -> Tensor:
    """One `scaled_dot_product_attention` for each run of neighbours of equal length: no padding, no mask.

    Packs are ordered by length, so runs are long; the fused kernel keeps memory linear in L. Where a CPU trains in bfloat16, it
    computes in float32: the fused kernel's backward takes ten times as long in bfloat16.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        with torch.autocast("cpu", enabled=False):
            wide = None if bias is None else bias.float()
            return grouped_sdpa(q.float(), k.float(), v.float(), batch, wide).to(q.dtype)
    outs = []
    groups = [(length, len(list(run))) for length, run in groupby(batch.seqlens)]
    sizes = [length * count for length, count in groups]
    # split, not slices: its backward is one concatenation, where every slice would fill a whole tensor
    for (length, _), *parts in zip(groups, *(torch.split(x, sizes) for x in (q, k, v)), strict=True):
        # [n L, N, H] -> [n, N, L, H], views only
        q_n, k_n, v_n = (x.view(-1, length, *x.shape[1:]).transpose(1, 2) for x in parts)
        out = F.scaled_dot_product_attention(q_n, k_n, v_n) if bias is None else biased_sdpa(q_n, k_n, v_n, bias)
        outs.append(out.transpose(1, 2).reshape(-1, *q.shape[1:]))
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def biased_sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
    """q, k, v [n, N, L, H] and a bias by distance -> [n, N, L, H]; a mask [n, 1, 1 or L, L] is added to it."""
    rows = reversed_rows(bias, q.shape[2])
    if mask is None and not q.is_cuda:
        return F.scaled_dot_product_attention(q.flip(2), k, v, rows).flip(2)
    return by_rows(q.flip(2), k, v, rows, None if mask is None else mask.flip(2)).flip(2)


def by_rows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
    """For kernels that want bias and mask as one, in memory of its own: some rows [n, N, _, L] of it at a time."""
    length = q.shape[2]
    step = max(1, MAX_BIASES // ((1 if mask is None else len(mask)) * bias.shape[1] * length))
    outs = []
    for start in range(0, length, step):
        rows = slice(start, start + step)
        some = bias[:, :, rows]
        added = some.contiguous() if mask is None else some + mask.expand(-1, -1, length, -1)[:, :, rows]
        outs.append(F.scaled_dot_product_attention(q[:, :, rows], k, v, added))
    return torch.cat(outs, 2)


def varlen_flash(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, bias: Tensor | None = None) -> Tensor:
    """The GPU kernel that reads `cu_seqlens` itself; half precision only, and no bias."""
    from torch.nn.attention.varlen import varlen_attn  # torch >= 2.10, loads CUDA kernels

    assert bias is None, "kernel_for takes another kernel"
    n = batch.max_seqlen
    out = varlen_attn(q, k, v, batch.cu_seqlens, batch.cu_seqlens, n, n)
    assert isinstance(out, Tensor), "varlen_attn returns a tuple only where more than the output is asked for"
    return out


KERNELS: dict[str, Kernel] = {"reference": reference, "sdpa": grouped_sdpa, "varlen": varlen_flash}


def kernel_for(device: torch.device, dtype: torch.dtype, *, biased: bool = False) -> Kernel:
    """The kernel of choice: varlen flash on CUDA in half precision without a bias, grouped SDPA everywhere else."""
    half = dtype in (torch.float16, torch.bfloat16)
    return varlen_flash if device.type == "cuda" and half and not biased else grouped_sdpa


def attention(
    q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, *, bias: Tensor | None = None, kernel: str | None = None
) -> Tensor:
    """Attend within each sequence of the pack: q, k, v [T, N, H], bias [N, 2M - 1] by distance -> [T, N, H].

    `kernel` names one, for tests.
    """
    chosen = KERNELS[kernel] if kernel else kernel_for(q.device, q.dtype, biased=bias is not None)
    return chosen(q, k, v, batch, bias)
