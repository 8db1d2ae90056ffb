"""Writes a toy teacher as the file the real one comes in, from the description of the format alone."""

import struct
from pathlib import Path

import numpy as np

from fivefold.train.teacher import TeacherFile

BLOCKS = ("emb.word",)
"""Tensors written as 4-bit blocks; the others as float32."""


def blocks_of(flat: np.ndarray) -> bytes:
    """Blocks of 32: a float16 scale, then 16 bytes whose low halves are weights 0-15 and high halves 16-31, plus 8."""
    out = b""
    for block in flat.reshape(-1, 32):
        extreme = block[np.abs(block).argmax()]
        scale = np.float16(extreme / -8)
        codes = np.clip(np.round(block / np.float32(scale)), -8, 7).astype(int) + 8
        out += scale.tobytes() + bytes(low | high << 4 for low, high in zip(codes[:16], codes[16:], strict=True))
    return out


def write_teacher(path: Path, file: TeacherFile) -> None:
    """Header, pieces, normal forms, directory, tensors; all little-endian."""
    encoded = [piece.encode() for piece in file.pieces]
    ends = np.cumsum([0, *map(len, encoded)]).astype("<u4")
    sizes = (file.hidden_size, file.num_layers, file.num_heads, file.intermediate_size, file.vocab_size)
    head = b"E5S1" + struct.pack("<I7ifi", 1, *sizes, file.num_positions, file.num_types, file.layer_norm_eps, 32)
    head += struct.pack("<5iQ", len(encoded), file.bos, file.eos, file.pad, file.unk, int(ends[-1]))
    head += ends.tobytes() + file.scores.astype("<f4").tobytes() + b"".join(encoded)
    head += struct.pack("<iI", len(file.normal_forms), 0)
    for character, form in file.normal_forms.items():
        head += struct.pack("<IB", ord(character), len(form)) + np.array([ord(c) for c in form], "<u4").tobytes()
    head += struct.pack("<i", len(file.tensors))
    parts = {n: blocks_of(t) if n in BLOCKS else t.astype("<f4").tobytes() for n, t in file.tensors.items()}
    at = len(head) + sum(2 + len(name) + struct.calcsize("<BIQQ") for name in parts)
    directory = b""
    for name, part in parts.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", int(name in BLOCKS), file.tensors[name].size, at, len(part))
        at += len(part)
    path.write_bytes(head + directory + b"".join(parts.values()))
