"""Vectors after pooling: cut, *then* normalise, *then* quantise; and the base64 of the wire. Numpy only.

Shapes: S vectors, D hidden, d kept dims.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.errors import DimensionError, InputError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]


def cut(vectors: FloatArray, dims: int) -> FloatArray:
    """The first `dims` dimensions (Kusupati et al. 2022, arXiv 2205.13147): [..., D] -> [..., d]."""
    return vectors[..., :dims]


def normalize(vectors: FloatArray) -> FloatArray:
    """To unit Euclidean length over the last axis; a zero vector stays zero."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)  # scaled first, so that squares neither overflow nor vanish
    scaled = vectors / np.where(largest > 0, largest, 1)
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    unit: FloatArray = (scaled / np.where(length > 0, length, 1)).astype(np.float32, copy=False)
    return unit


def to_int8(vectors: FloatArray) -> Array:
    """Each vector scaled so that its largest entry is 127, rounded: int8 [..., d].

    The scale is the vector's own, so a row never depends on its batch; cosine similarity does not see it.
    """
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    return np.rint(vectors / np.where(largest > 0, largest, 1) * 127).astype(np.int8)


def to_uint8(vectors: FloatArray) -> Array:
    """`to_int8` shifted by 128: uint8 [..., d], zero at 128."""
    return (to_int8(vectors).astype(np.int16) + 128).astype(np.uint8)


def to_ubinary(vectors: FloatArray) -> Array:
    """One bit a dimension, 1 where positive, the first dimension in the highest bit: uint8 [..., ceil(d / 8)]."""
    return np.packbits(vectors > 0, axis=-1)


def to_binary(vectors: FloatArray) -> Array:
    """The bytes of `to_ubinary` minus 128, as the hosted API and sentence-transformers have it: int8 [..., ceil(d /
    8)]."""
    return (to_ubinary(vectors).astype(np.int16) - 128).astype(np.int8)


PRECISIONS: dict[str, Callable[[FloatArray], Array]] = {
    "float32": lambda vectors: vectors,
    "int8": to_int8,
    "uint8": to_uint8,
    "binary": to_binary,
    "ubinary": to_ubinary,
}


@dataclass(frozen=True, slots=True)
class VectorForm:
    """The form vectors leave in; `apply` is the one place that holds the order of the three steps."""

    dims: int
    normalize: bool = True
    precision: str = "float32"

    @classmethod
    def checked(cls, truncate_dim: int | None, hidden_size: int, normalize: bool, precision: str) -> VectorForm:
        """A form from a caller's arguments: `truncate_dim` None keeps all; refuses what cannot be had."""
        dims = hidden_size if truncate_dim is None else truncate_dim
        if isinstance(dims, bool) or not isinstance(dims, int | np.integer) or not 1 <= dims <= hidden_size:
            raise DimensionError(f"truncate_dim must be a whole number from 1 to {hidden_size}, got {truncate_dim!r}")
        if precision not in PRECISIONS:
            raise InputError(f"unknown precision {precision!r}; choose one of: {', '.join(PRECISIONS)}")
        return cls(int(dims), bool(normalize), precision)

    def apply(self, vectors: FloatArray) -> Array:
        """float32 [S, D] -> [S, d], or packed bytes for the binary precisions."""
        kept = cut(vectors, self.dims)
        return PRECISIONS[self.precision](normalize(kept) if self.normalize else kept)


def to_base64(vector: FloatArray) -> str:
    """Little-endian float32 bytes in base64, as OpenAI and Jina send them."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def from_base64(text: str) -> FloatArray:
    """Inverse of `to_base64`: [d] float32."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
