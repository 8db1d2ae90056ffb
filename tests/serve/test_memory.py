"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from fivefold.serve import memory
from tests.serve.process import ROOT

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


# In a process of its own: where there is a hole in the heap, even a large block goes there.
LARGE_BLOCK = """
from fivefold.serve import memory
from tests.serve.process import ROOT
from tests.serve.test_memory import resident_mb
memory.map_large_blocks()
freed = bytearray(b"a") * (24 << 20)
del freed  # after which glibc by itself would map no block of up to this size
before = resident_mb()
block = bytearray(b"a") * (16 << 20)
above = [bytearray(b"a") * 60_000 for _ in range(50)]  # keeps the heap from shrinking
held = resident_mb()
del block
print(held - before, resident_mb() - before)
"""


def test_large_blocks_are_mapped() -> None:
    said = subprocess.run([sys.executable, "-c", LARGE_BLOCK], cwd=ROOT, capture_output=True, text=True, check=True)
    held, left = map(int, said.stdout.split())
    assert held > 12 and left < 7
