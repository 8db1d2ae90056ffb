"""Kernels in C for x86-64: a linear, or all layers of an encoder, in 8 bits or float32 (formulas: kernels.h).

By AVX2, or AVX-512 VNNI where there is that. On processors with AMX products are summed in its tiles: faster; linears in 8 bits
give the same bits everywhere, attention nearly. With AVX512-BF16 or AMX floats can be of one bfloat16 for each number; with AMX
of two, whose sum is the number to 2^-17 of itself.

The library is built when the package is installed, where there is a C compiler (hatch_build.py). It knows nothing of Python and
is called through ctypes, which lets other threads run meanwhile. Whoever makes a record of tensors keeps the tensors: a record
holds addresses.

Shapes: T tokens in the pack, I inputs, O outputs, D hidden. P is O rounded up to a multiple of 64, S the lines of 64 bytes
of a row.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from ctypes import POINTER, c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

LIBRARY = Path(__file__).parent / "libfivefold.so"
PANEL, TILE, WORD, LINE = 64, 16, 4, 64
"""Outputs of a panel; outputs of a tile, and its rows; bytes of what is added to one output at once, and of a tile's row."""
BYTES, ONE_PART, TWO_PARTS, TWO_BY_ONE, WHOLE = 0, 1, 2, 3, 4
"""Forms of numbers: 8 bits; one bfloat16 or two; inputs of two and weights of one, which is all there is to them; float32."""
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
        ("form", c_int64),
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
            names = ("supported", "wide", "floats", "tiles", "pairs", "linear", "encode")
            self._supported, self._wide, self._floats, self._tiles, self._pairs, self._linear, self._encode = (
                getattr(library, f"fivefold_{name}") for name in names
            )
        except AttributeError as error:  # a checkout went on and its library did not
            raise OSError(str(error)) from None
        self._linear.argtypes = [POINTER(LinearRecord), c_void_p, c_int64, c_void_p, c_void_p, c_int]
        self._encode.argtypes = [POINTER(EncoderRecord), POINTER(PackRecord), c_void_p, c_int]

    @property
    def supported(self) -> bool:
        """Whether this processor has what they need."""
        return bool(self._supported())

    @property
    def parts(self) -> int:
        """Of how many bfloat16 a number can be that they multiply here: two, one, or none."""
        return int(self._floats()) if self.supported else 0

    def use_wide(self, wanted: bool) -> bool:
        """Use AVX-512 where the processor has it, as at first, or AVX2 in its place, in the whole process -> whether it is used
        from now on. Codes of one are not those of the other, so nothing may be running."""
        return bool(self._wide(int(wanted)))

    def use_tiles(self, wanted: bool) -> bool:
        """Use AMX for bytes and one bfloat16 where the processor has it, as at first, or never, in the whole process -> whether
        it is used from now on."""
        return bool(self._tiles(int(wanted)))

    def use_pairs(self, wanted: bool) -> bool:
        """Use AVX512-BF16 for attention where the processor has it and no tile is used, as at first, or float32, in the whole
        process -> whether it is used from now on."""
        return bool(self._pairs(int(wanted)))

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
        return "" if Kernels().supported else "the processor has no avx2"
    except OSError:
        return "fivefold's own kernels were not built when this version was installed: that takes a C compiler"


def lack_of_bfloat16(parts: int = ONE_PART) -> str:
    """The same for numbers of so many bfloat16."""
    if lack := lack_of_kernels():
        return lack
    missing = "amx_bf16" if parts > ONE_PART else "amx_bf16 or avx512_bf16"
    return "" if Kernels().parts >= min(parts, TWO_PARTS) else f"the processor has no {missing}"


class Pages:
    """Memory for the weights of a model, end to end, in large pages where the system has them.

    To read all weights is most of the time of a single short text, and to find small pages a good part of that.
    """

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._taken = 0

    def take(self, size: int) -> Tensor:
        """The next bytes [size], from a whole line on, which keep the memory as long as they are there."""
        start = self._taken
        self._taken += -(-size // LINE) * LINE
        return torch.frombuffer(self._memory, dtype=torch.uint8, count=size, offset=start)


def packed_size(outputs: int, inputs: int, form: int) -> int:
    """Bytes of a packed matrix, whole lines."""
    if form == WHOLE:
        return -(-outputs // PANEL) * PANEL * inputs * 4
    parts, width = 2 if form == TWO_PARTS else 1, 2 if form else 1
    return -(-outputs // PANEL) * PANEL * parts * -(-inputs * width // LINE) * LINE


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix in the order in which the kernels read, bytes [P / 64, 2, S, parts, 2, 16, 16, 4] or float32 [P / 64, 4, I, 16].

    In 8 bits with the scales of its rows and their sums, [O] both.
    """

    form: int
    weight: Tensor
    scales: Tensor | None = None
    sums: Tensor | None = None


def pack_codes(codes: Tensor, scales: Tensor, pages: Pages | None = None) -> Packed:
    """int8 [O, I] and scales [O]."""
    return Packed(BYTES, _packed(codes, BYTES, lambda rows: rows[None], pages), scales, codes.sum(1) * scales)


def float_form(weight: Tensor, parts: int) -> int:
    """How float [O, I] is packed for inputs of so many bfloat16: a second part of what is all zeros is left out."""
    return TWO_BY_ONE if parts == TWO_PARTS and torch.equal(weight.bfloat16().to(weight.dtype), weight) else parts


def pack_floats(weight: Tensor, form: int, pages: Pages | None = None) -> Packed:
    """float [O, I] as it is, or as one bfloat16, the nearest, or two, the second for what the first leaves."""

    def split(rows: Tensor) -> Tensor:
        first = rows.bfloat16()
        return torch.stack((first, (rows.float() - first.float()).bfloat16())) if form == TWO_PARTS else first[None]

    return Packed(form, _packed(weight.detach(), form, _whole if form == WHOLE else split, pages))


def _whole(rows: Tensor) -> Tensor:
    return rows.float()[None]


def _packed(matrix: Tensor, form: int, parts: Callable[[Tensor], Tensor], pages: Pages | None) -> Tensor:
    """A matrix [O, I] to the bytes of `Packed`, a panel at a time, for little memory beside; `parts` makes rows
    [parts, rows, I]."""
    outputs, inputs = matrix.shape
    size = packed_size(outputs, inputs, form)
    into = torch.empty(size, dtype=torch.uint8) if pages is None else pages.take(size)
    panels = into.view(torch.int32).view(-(-outputs // PANEL), -1)
    for i, panel in enumerate(panels):
        rows = parts(matrix[i * PANEL : (i + 1) * PANEL])
        panel.copy_((_columns(rows) if form == WHOLE else _tiles(rows)).flatten())
    return into


def _columns(parts: Tensor) -> Tensor:
    """Up to a panel of rows [1, rows, I] float32 -> words, int32 [4, I, 16], filled up with zeros."""
    filled = F.pad(parts[0], (0, 0, 0, -parts.shape[1] % PANEL)).contiguous()
    return filled.view(torch.int32).view(-1, TILE, filled.shape[1]).transpose(1, 2)


def _tiles(parts: Tensor) -> Tensor:
    """Up to a panel of rows [parts, rows, I] -> words of tiles, int32 [2, S, parts, 2, 16, 16], filled up with zeros."""
    step = LINE // parts.element_size()
    filled = F.pad(parts, (0, -parts.shape[2] % step, 0, -parts.shape[1] % PANEL)).contiguous()
    words = filled.view(torch.int32).view(len(parts), 2, 2, TILE, filled.shape[2] // step, LINE // WORD)
    return words.permute(1, 4, 0, 2, 5, 3)


def fill(x: Tensor) -> Tensor:
    """float [..., O] -> float32 [..., P], with zeros."""
    return F.pad(x.detach().float(), (0, -x.shape[-1] % PANEL)).contiguous()
