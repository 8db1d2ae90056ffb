"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from fivefold import memory
from fivefold.checkpoint import write
from fivefold.config import ModelConfig
from fivefold.model import Encoder
from tests import toy
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
from fivefold import memory
from tests.serve.process import ROOT
from tests.test_memory import resident_mb
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


# In a process of its own, whose heap has the holes of these two models alone.
LOADED = """
import sys
from fivefold import Embedder
from tests.test_memory import resident_mb
Embedder.load(dtype="int8").encode("warm")
before = resident_mb()
embedder = Embedder.load(sys.argv[1], dtype="int8")
print(resident_mb() - before)
"""


def test_a_model_in_8_bits_takes_no_more_than_its_codes(tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=20_000, num_hidden_layers=4, pooler=False)
    encoder = Encoder(config)
    encoder.reset_parameters()
    write(tmp_path / "m", config, encoder.state_dict())
    toy.rust_tokenizer().save(str(tmp_path / "m" / "tokenizer.json"))
    codes_mb = sum(p.numel() for p in encoder.parameters()) / 2**20
    command = [sys.executable, "-c", LOADED, str(tmp_path / "m")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert codes_mb > 60
    assert int(said.stdout) < codes_mb * 1.1
