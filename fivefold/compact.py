"""Matrices in fewer bits, as our own layout stores them: a tensor of codes and, under the same name and `_scale`, its scales.

int8   codes int8 [O, I], scales float32 [O]: a scale for each row, codes -127 to 127
int4   codes uint8 [O, I/2], scales float16 [O, I/32]: a scale for each block of 32 columns; byte j of a block holds column j
       in its low half and column j + 16 in its high half, each code -8 to 7 stored with 8 added

The int4 scale is the block's entry of largest magnitude over -8, so that a matrix that was read from such blocks is stored in
the same ones without loss.

Shapes: O rows, I columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Compact:
    """One way to store a matrix; `dtype` is the name safetensors gives that of the codes, `block` divides the columns."""

    dtype: str
    block: int
    shapes: Callable[[Shape], tuple[Shape, Shape]]
    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor, Tensor], Tensor]


def _encode_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """float [O, I] -> codes [O, I], scales [O]."""
    scale = _nonzero(rows.abs().amax(dim=1) / 127)
    return (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def _decode_int8(codes: Tensor, scale: Tensor) -> Tensor:
    """-> float32 [O, I]."""
    return codes.float() * scale[:, None]


def _encode_int4(rows: Tensor) -> tuple[Tensor, Tensor]:
    """float [O, I] -> codes [O, I/2], scales [O, I/32]."""
    blocks = rows.view(len(rows), -1, BLOCK)
    largest = blocks.gather(2, blocks.abs().argmax(dim=2, keepdim=True))  # with its sign: [O, I/32, 1]
    scale = (largest / -8).to(torch.float16)
    codes = (blocks / _nonzero(scale.float())).round().clamp(-8, 7).add(8).to(torch.uint8)
    low, high = codes.chunk(2, dim=2)  # [O, I/32, 16] each
    return (low | high << 4).flatten(1), scale[..., 0]


def _decode_int4(codes: Tensor, scale: Tensor) -> Tensor:
    """-> float32 [O, I]."""
    halves = codes.view(len(codes), -1, BLOCK // 2)
    blocks = torch.cat((halves & 15, halves >> 4), dim=2).float()  # [O, I/32, 32]
    return blocks.sub_(8).mul_(scale.float()[..., None]).flatten(1)


def _nonzero(scale: Tensor) -> Tensor:
    """A block or row of zeros keeps its codes at zero under any scale but zero."""
    return torch.where(scale == 0, torch.ones_like(scale), scale)


INT8 = Compact("I8", 1, lambda shape: (shape, shape[:1]), _encode_int8, _decode_int8)
INT4 = Compact("U8", BLOCK, lambda s: ((s[0], s[1] // 2), (s[0], s[1] // BLOCK)), _encode_int4, _decode_int4)
BY_DTYPE: Mapping[str, Compact] = {form.dtype: form for form in (INT8, INT4)}
