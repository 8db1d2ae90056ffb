"""Kernels in C for processors with AVX-512 VNNI: one linear, or all layers of an encoder, in 8 bits (kernels.h has the formulas).

The library is built when the package is installed where there is a C compiler (hatch_build.py), knows nothing of Python and is called
through ctypes, which lets other threads run meanwhile. Whoever makes records from tensors keeps the tensors: a record holds addresses.

Shapes: T tokens in the pack, I inputs, O outputs, D hidden, R rank, H head dim, M tokens of the longest text. P is O rounded up to a
multiple of 64.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

LIBRARY = Path(__file__).parent / "libfivefold.so"
PANEL, QUAD = 64, 4
"""Outputs and inputs that stand together in a packed matrix."""


class TermRecord(ctypes.Structure):
    """`struct term`."""

    _fields_ = [("rank", c_int64), ("down", c_void_p), ("up", c_void_p)]


class LinearRecord(ctypes.Structure):
    """`struct linear`."""

    _fields_ = [
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("sums", c_void_p),
        ("terms", POINTER(TermRecord)),
        ("tasks", c_int64),
    ]


class NormRecord(ctypes.Structure):
    """`struct norm`."""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("eps", c_double)]


class LayerRecord(ctypes.Structure):
    """`struct layer`."""

    _fields_ = [
        ("qkv", LinearRecord),
        ("out", LinearRecord),
        ("up", LinearRecord),
        ("down", LinearRecord),
        ("first", NormRecord),
        ("second", NormRecord),
    ]


class EncoderRecord(ctypes.Structure):
    """`struct encoder`."""

    _fields_ = [
        ("count", c_int64),
        ("hidden", c_int64),
        ("inner", c_int64),
        ("heads", c_int64),
        ("layers", POINTER(LayerRecord)),
    ]


class PackRecord(ctypes.Structure):
    """`struct pack`."""

    _fields_ = [
        ("texts", c_int64),
        ("tokens", c_int64),
        ("starts", c_void_p),
        ("tasks", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
    ]


class Kernels:
    """The opened library."""

    def __init__(self, path: Path = LIBRARY) -> None:
        library = ctypes.CDLL(str(path))
        self._supported, self._linear, self._encode = (
            getattr(library, f"fivefold_{name}") for name in ("supported", "linear", "encode")
        )
        self._linear.argtypes = [POINTER(LinearRecord), c_void_p, c_int64, c_void_p, c_void_p, c_int]
        self._encode.argtypes = [POINTER(EncoderRecord), POINTER(PackRecord), c_void_p, c_int]

    @property
    def supported(self) -> bool:
        """Whether this processor has what they need."""
        return bool(self._supported())

    def linear(self, record: LinearRecord, tasks: Tensor, x: Tensor) -> Tensor:
        """x [T, I] float32, tasks [T] int32 -> [T, O]."""
        x = x.contiguous()
        y = x.new_empty(len(x), record.outputs)
        self._check(self._linear(record, tasks.data_ptr(), len(x), x.data_ptr(), y.data_ptr(), torch.get_num_threads()))
        return y

    def encode(self, record: EncoderRecord, pack: PackRecord, x: Tensor) -> Tensor:
        """x [T, D] float32 -> hidden states [T, D] after the last layer; x is used up."""
        x = x.contiguous()
        self._check(self._encode(record, pack, x.data_ptr(), torch.get_num_threads()))
        return x

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise MemoryError("not enough memory for the activations of this batch; use a smaller max_batch_tokens")


def pack_codes(codes: Tensor) -> Tensor:
    """int8 [O, I] -> [P / 64, I / 4, 64, 4], filled up with zeros: the order in which the kernels read."""
    rows, columns = codes.shape
    filled = F.pad(codes, (0, -columns % QUAD, 0, -rows % PANEL))
    return filled.view(-1, PANEL, filled.shape[1] // QUAD, QUAD).transpose(1, 2).contiguous()


def fill(x: Tensor) -> Tensor:
    """float [..., O] -> float32 [..., P], with zeros."""
    return F.pad(x.detach().float(), (0, -x.shape[-1] % PANEL)).contiguous()
