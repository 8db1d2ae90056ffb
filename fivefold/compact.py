"""Matrices in fewer bits, as our own layout stores them: codes and, under the same name with an ending, what they mean.

int8   codes int8 [O, I], `_scale` float32 [O]: a scale for each row, codes -127 to 127
books  codes uint8 [O, I/3], `_books` float16 [I/3, 256, 3], `_basis` float16 [I, I]: each code is a point of its book, and all
       of a row's points, one behind the other, times the basis are the row (codebooks.py)

Shapes: O rows, I columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from fivefold import codebooks
from fivefold.codebooks import GROUP, POINTS

SCALE, BOOKS, BASIS = "_scale", "_books", "_basis"

Shape = tuple[int, ...]
Parts = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Compact:
    """One way to store a matrix.

    Args:
        dtype: the name that safetensors gives that of the codes.
        endings: of the names of the tensors beside the codes.
        per_code: numbers that one code stands for; divides the columns.
        shapes: of a matrix -> of its codes and of what lies beside them.
        encode: float [O, I] -> its codes and what lies beside them.
        decode: the way back, to float32.
    """

    dtype: str
    endings: tuple[str, ...]
    per_code: int
    shapes: Callable[[Shape], tuple[Shape, ...]]
    encode: Callable[[Tensor], Parts]
    decode: Callable[..., Tensor]

    def rows(self, parts: Parts, some: slice) -> Tensor:
        """Some rows of a matrix of these parts, as float32."""
        each = (
            part[some] if ending in ("", SCALE) else part
            for ending, part in zip(("", *self.endings), parts, strict=True)
        )
        return self.decode(*each)


def _encode_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """float [O, I] -> codes [O, I], scales [O]."""
    scale = _nonzero(rows.abs().amax(dim=1) / 127)
    return (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def _decode_int8(codes: Tensor, scale: Tensor) -> Tensor:
    """-> float32 [O, I]."""
    return codes.float() * scale[:, None]


def _nonzero(scale: Tensor) -> Tensor:
    """A row of zeros keeps its codes at zero under any scale but zero."""
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _shapes_of_books(shape: Shape) -> tuple[Shape, ...]:
    rows, columns = shape
    return (rows, columns // GROUP), (columns // GROUP, POINTS, GROUP), (columns, columns)


INT8 = Compact("I8", (SCALE,), 1, lambda shape: (shape, shape[:1]), _encode_int8, _decode_int8)
CODEBOOKS = Compact("U8", (BOOKS, BASIS), GROUP, _shapes_of_books, codebooks.encode, codebooks.decode)
FORMS = (INT8, CODEBOOKS)


def form_of(name: str, names: Collection[str]) -> Compact | None:
    """How the matrix of this name is stored, by what lies beside it: in one of these forms, or as plain numbers."""
    return next((form for form in FORMS if name + form.endings[0] in names), None)
