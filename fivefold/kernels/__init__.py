"""Kernels in C for processors with AVX-512 VNNI: a linear, or all layers of an encoder, in 8 bits (formulas: kernels.h).

On processors with AMX products are summed in its tiles: faster; linears give the same bits, attention nearly.

The library is built when the package is installed, where there is a C compiler (hatch_build.py). It knows nothing of Python and
is called through ctypes, which lets other threads run meanwhile. Whoever makes a record of tensors keeps the tensors: a record
holds addresses.

Shapes: T tokens in the pack, I inputs, O outputs, D hidden. P is O rounded up to a multiple of 64.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

LIBRARY = Path(__file__).parent / "libfivefold.so"
PANEL, QUAD = 64, 4
"""Outputs and inputs that stand together in a packed matrix."""
LANES = 16
"""What divides inputs and hidden sizes that the kernels can take."""


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
        ("qkv", POINTER(LinearRecord)),
        ("out", POINTER(LinearRecord)),
        ("up", POINTER(LinearRecord)),
        ("down", POINTER(LinearRecord)),
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
    """The opened library.

    Raises:
        OSError: there is none, or not for this system or this version.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(str(LIBRARY))
        try:
            self._supported, self._tiles, self._linear, self._encode = (
                getattr(library, f"fivefold_{name}") for name in ("supported", "tiles", "linear", "encode")
            )
        except AttributeError as error:  # a checkout went on and its library did not
            raise OSError(str(error)) from None
        self._linear.argtypes = [POINTER(LinearRecord), c_void_p, c_int64, c_void_p, c_void_p, c_int]
        self._encode.argtypes = [POINTER(EncoderRecord), POINTER(PackRecord), c_void_p, c_int]

    @property
    def supported(self) -> bool:
        """Whether this processor has what they need."""
        return bool(self._supported())

    def use_tiles(self, wanted: bool) -> bool:
        """Use AMX where the processor has it, as at first, or never, in the whole process -> whether it is used from now on."""
        return bool(self._tiles(int(wanted)))

    def linear(self, record: LinearRecord, tasks: Tensor, x: Tensor) -> Tensor:
        """x [T, I] float32, tasks [T] int32 -> [T, O]."""
        x = x.contiguous()
        y = x.new_empty(len(x), record.outputs)
        _check(self._linear(record, tasks.data_ptr(), len(x), x.data_ptr(), y.data_ptr(), torch.get_num_threads()))
        return y

    def encode(self, record: EncoderRecord, pack: PackRecord, x: Tensor) -> None:
        """x [T, D] float32, contiguous -> hidden states after the last layer, in place."""
        _check(self._encode(record, pack, x.data_ptr(), torch.get_num_threads()))


def _check(status: int) -> None:
    if status:
        raise MemoryError("not enough memory for the activations of this batch; use a smaller max_batch_tokens")


def lack_of_kernels() -> str:
    """Why the kernels cannot be used here; nothing where they can."""
    try:
        return "" if Kernels().supported else "the processor has no avx512_vnni"
    except OSError:
        return "fivefold's own kernels were not built when this version was installed: that takes a C compiler"


def pack_codes(codes: Tensor) -> Tensor:
    """int8 [O, I] -> [P / 64, I / 4, 64, 4], filled up with zeros: the order in which the kernels read."""
    filled = F.pad(codes, (0, 0, 0, -len(codes) % PANEL))
    return filled.view(-1, PANEL, filled.shape[1] // QUAD, QUAD).transpose(1, 2).contiguous()


def fill(x: Tensor) -> Tensor:
    """float [..., O] -> float32 [..., P], with zeros."""
    return F.pad(x.detach().float(), (0, -x.shape[-1] % PANEL)).contiguous()
