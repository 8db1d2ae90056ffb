"""A folder with a small set of every kind."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

from tests import toy

WORDS = [text.split() for text in toy.TEXTS[:5]]


def text(number: int, length: int = 3) -> str:
    words = WORDS[number % 5]
    start = number % len(words)
    return " ".join((words * 3)[start : start + length]) + f" {number}"


def write_lines(path: Path, rows: list[str]) -> None:
    with lzma.open(path, "wt", encoding="utf-8") if path.suffix == ".xz" else path.open("w", encoding="utf-8") as file:
        file.writelines(row + "\n" for row in rows)


def write_sets(folder: Path) -> Path:
    folder.mkdir()
    write_lines(folder / "stsb-en-dev.tsv.xz", [f"{text(i)}\t{text(i + 1 + i % 4)}\t{i % 5}" for i in range(12)])
    write_lines(folder / "tatoeba-deu-eng.tsv", [f"{text(i)}\t{text(i, 4)}" for i in range(8)])
    for lang, length in (("en", 3), ("de", 5)):
        rows = [{"context": f"{text(i, 9)}. {text(i, length)}.", "questions": [text(i, 2), text(i)]} for i in range(10)]
        write_lines(folder / f"xquad-{lang}.jsonl.xz", list(map(json.dumps, rows)))
    vital = [{"lang": "fr", "desc": text(i, 2) if i else None, "p": text(i, 8)} for i in range(6)]
    write_lines(folder / "vital-retrieval.jsonl.xz", list(map(json.dumps, vital)))
    for part, start in (("train", 0), ("dev", 40)):
        labelled = [f"{'abc'[i % 3]}\t{text(i * 5 + i % 3)}" for i in range(start, start + 18)]
        write_lines(folder / f"sib200-eng_Latn-{part}.tsv.xz", labelled)
    return folder
