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


def test_large_blocks_are_mapped() -> None:
    memory.map_large_blocks()
    before = resident_mb()
    block = bytearray(b"a") * (memory.MAPPED_BYTES * 16)
    assert resident_mb() > before + 20
    del block
    assert resident_mb() < before + 10
