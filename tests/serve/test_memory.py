"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from fivefold.serve import memory

STATUS = Path("/proc/self/status")
pytestmark = pytest.mark.skipif(not hasattr(ctypes.pythonapi, "malloc_trim"), reason="needs glibc")


def resident_mb() -> int:
    return int(STATUS.read_text().split("VmRSS:")[1].split()[0]) // 1024


def test_holes_are_given_back() -> None:
    kept, freed = [], []
    for _ in range(3_000):  # blocks that only a trim gives back: each second one stays
        kept.append(bytes(50_000))
        freed.append(bytes(50_000))
    full = resident_mb()
    freed.clear()
    memory.give_back()
    assert resident_mb() < full - 50
    assert len(kept) == 3_000


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h; its fifth field is the bytes of blocks with memory of their own."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


@pytest.mark.skipif(not hasattr(ctypes.pythonapi, "mallinfo2"), reason="needs glibc 2.33")
def test_large_blocks_are_mapped() -> None:
    mallinfo = ctypes.pythonapi.mallinfo2
    mallinfo.restype = Mallinfo
    memory.map_large_blocks()
    size = memory.MAPPED_BYTES * 16
    before = mallinfo().hblkhd
    block = bytearray(size)
    assert mallinfo().hblkhd >= before + size
    del block
    assert mallinfo().hblkhd < before + size
