"""A teacher, corpora and a student small enough for tests: no file, no network, milliseconds."""

import json
import lzma
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from fivefold.checkpoint import write
from fivefold.train.corpora import Corpora, Graded, Labelled, Pair, Segment
from fivefold.train.student import build_student, student_config, student_tensors
from fivefold.train.teacher import TeacherFile
from fivefold.train.vocabulary import MASK, SPECIALS, tokenizer_of
from tests import toy

HIDDEN, LAYERS, HEADS, WIDE, POSITIONS = 48, 2, 2, 16, 512
WORDS = ["▁sun", "▁moon", "▁sol", "▁luna", "▁red", "▁rojo", "shine", "▁", "ж", "ሀ", *"abcdelmnorstu"]


def teacher_file(seed: int = 0) -> TeacherFile:
    """Random weights under the file's names; sizes divisible as in the real one."""
    pieces = [*SPECIALS, *WORDS, MASK]
    rng = np.random.default_rng(seed)
    rows = len(pieces)

    def draw(size: int) -> np.ndarray:
        return rng.normal(scale=0.2, size=size).astype(np.float32)

    tensors = {"emb.word": draw(rows * HIDDEN), "emb.pos": draw(POSITIONS * HIDDEN), "emb.type": draw(2 * HIDDEN)}
    norms = ["emb.ln", *(f"l{n}.{name}" for n in range(LAYERS) for name in ("aln", "oln"))]
    tensors |= {f"{name}.w": 1 + draw(HIDDEN) for name in norms} | {f"{name}.b": draw(HIDDEN) for name in norms}
    square = [(name, HIDDEN, HIDDEN) for name in ("q", "k", "v", "ao")]
    shapes = [*square, ("fi", WIDE, HIDDEN), ("fo", HIDDEN, WIDE)]
    for n in range(LAYERS):
        for name, out, into in shapes:
            tensors |= {f"l{n}.{name}.w": draw(out * into), f"l{n}.{name}.b": draw(out)}
    scores = -np.arange(rows, dtype=np.float32) / 4
    return TeacherFile(
        hidden_size=HIDDEN,
        num_layers=LAYERS,
        num_heads=HEADS,
        intermediate_size=WIDE,
        vocab_size=rows,
        num_positions=POSITIONS,
        num_types=2,
        layer_norm_eps=1e-12,
        bos=0,
        eos=2,
        pad=1,
        unk=3,
        pieces=pieces,
        scores=scores,
        normal_forms={},
        tensors=tensors,
    )


def corpora() -> Corpora:
    """A few rows of every kind."""
    found = Corpora()
    sentences = [("sun shines", "sol"), ("red moon", "luna roja"), ("red sun", "sol rojo"), ("moon", "luna")]
    found.segments["bible"] = [Segment({"en": en, "es": es}) for en, es in sentences]
    found.pairs["vital_title"] = [Pair("en", en, f"{en} and moon. {en} {es}") for en, es in sentences]
    found.labels["vitaltopic"] = [Labelled("en", en, "ab"[i % 2]) for i, (en, _) in enumerate(sentences)]
    found.labels["ha_intent"] = [Labelled("es", es, "ab"[i % 2]) for i, (_, es) in enumerate(sentences)]
    found.graded["en"] = [Graded("en", en, en[::-1], float(i)) for i, (en, _) in enumerate(sentences)]
    return found


def write_lines(path, rows):
    """A compressed file of lines: texts as they are, anything else as JSON."""
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def student(seed: int = 0):
    """The untrained student of the toy teacher, and its tokenizer."""
    torch.manual_seed(seed)
    file = teacher_file()
    encoder = build_student(student_config(file, matryoshka=(4, 8, HIDDEN)), student_tensors(file))
    return encoder, tokenizer_of(file)


def model_folder(folder: Path, **changes: object) -> Path:
    """A random model with adapters that differ, as a folder."""
    encoder = toy.encoder(toy.config(**changes), adapters=0.1)
    write(folder, encoder.config, encoder.state_dict())
    toy.rust_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def jsonl(path: Path, rows: Iterable[object]) -> Path:
    """A plain file of JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different texts of words that the toy tokenizer knows."""
    rng = np.random.default_rng(seed)
    words = [word for text in toy.TEXTS[:5] for word in text.split()]
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(rng.choice(words, size=4))] = None
    return list(found)


def pairs(count: int) -> list[dict[str, str]]:
    """Rows of a query and a passage, all texts different."""
    texts = sentences(2 * count)
    return [{"query": q, "passage": p} for q, p in zip(texts[:count], texts[count:], strict=True)]
