"""Evaluation sets as files in a folder: which names are read, and what they hold.

Files may be compressed with xz. A tab parts columns; JSON stands one object a line.

    stsb-*-dev, stsb-*-test, sts-*   .tsv    text, text, score
    tatoeba-*, udhr-*, bitext-*      .tsv    text, translation
    xquad-LANG, retrieval-LANG       .jsonl  context, questions; sets of equal size are also asked across, LANG -> en
    vital-retrieval                  .jsonl  lang, desc, p
    sib200-*, labels-*, banking77    .tsv    label, text; -train beside -test, or -dev where there is no -test
    long-*                           .jsonl  chunks, questions (a list for each chunk)

Five neighbouring contexts of an xquad file are one article, so that file is also read as long documents; and the passages of
every retrieval set as documents whose chunks are their sentences.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fivefold.errors import InputError

Texts = tuple[str, ...]

SHIPPED = Path(__file__).parent / "data"
"""The sets that come along; README.md there says from where and under which licence."""
SENTENCE_END = re.compile(r"(?<=[.!?।])\s+|(?<=[。！？])")
ARTICLE = 5
"""Contexts of one article in an xquad file."""


@dataclass(frozen=True, slots=True)
class Graded:
    """Pairs and how alike people found them."""

    name: str
    first: Texts
    second: Texts
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bitext:
    """Texts and their translations."""

    name: str
    left: Texts
    right: Texts


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Queries, and for each the number of the one passage that answers it."""

    name: str
    queries: Texts
    passages: Texts
    gold: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts of classes, in two parts."""

    name: str
    train: Texts
    train_labels: Texts
    test: Texts
    test_labels: Texts


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents as lists of chunks, and for each query the number of its document and of the chunk in it, if that is known."""

    name: str
    documents: tuple[Texts, ...]
    queries: Texts
    gold: tuple[tuple[int, int | None], ...]


EvalSet: TypeAlias = Graded | Bitext | Retrieval | Labelled | Documents


def read_sets(folders: Iterable[Path]) -> list[EvalSet]:
    """All sets of the folders, in the order of their kinds; one that several folders hold is there once.

    Raises:
        InputError: a folder that does not exist or holds no set, a row that is not as above, or two sets of one name.
    """
    found: dict[str, EvalSet] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; give folders of evaluation sets")
        here = [eval_set for reader in READERS for eval_set in reader(folder)]
        if not here:
            raise InputError(f"{folder} holds no evaluation set; docs/evaluation.md says which names are read")
        for data in here:
            if found.setdefault(data.name, data) != data:
                raise InputError(f"{folder}: another set is called {data.name} already; rename one, or leave it out")
    return list(found.values())


def _files(folder: Path, *patterns: str) -> dict[str, Path]:
    """Files by their name without suffixes, in order."""
    found = [path for pattern in patterns for end in ("", ".xz") for path in folder.glob(pattern + end)]
    return {path.name.removesuffix(".xz").rsplit(".", 1)[0]: path for path in sorted(found)}


def _lines(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as lines:
        yield from (line.rstrip("\n") for line in lines)


def _columns(path: Path, count: int, parts: int = -1) -> list[Texts]:
    """A file's columns; `parts` cuts at the first tabs only."""
    rows = [line.split("\t", parts) for line in _lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != count:
            raise InputError(f"{path}, row {number}: {count} columns with tabs between are needed, found {len(row)}")
    return list(zip(*rows, strict=True))


def _objects(path: Path, *keys: str) -> list[dict[str, Any]]:
    """A file's JSON objects, each with all of `keys`."""
    rows = []
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, row {number} is not JSON: {error}") from None
        missing = [key for key in keys if key not in row]
        if missing:
            raise InputError(f"{path}, row {number} has no {', '.join(missing)}")
        rows.append(row)
    return rows


def _graded(folder: Path) -> Iterator[EvalSet]:
    for name, path in _files(folder, "stsb-*-dev.tsv", "stsb-*-test.tsv", "sts-*.tsv").items():
        first, second, scores = _columns(path, 3)
        yield Graded(name, first, second, tuple(map(float, scores)))


def _bitext(folder: Path) -> Iterator[EvalSet]:
    for name, path in _files(folder, "tatoeba-*.tsv", "udhr-*.tsv", "bitext-*.tsv").items():
        yield Bitext(name, *_columns(path, 2))


def _asked(folder: Path) -> Iterator[EvalSet]:
    for family in ("xquad", "retrieval"):
        sets = {}
        for name, path in _files(folder, f"{family}-*.jsonl").items():
            rows = _objects(path, "context", "questions")
            queries = tuple(question for row in rows for question in row["questions"])
            gold = tuple(number for number, row in enumerate(rows) for _ in row["questions"])
            sets[name] = Retrieval(name, queries, tuple(row["context"] for row in rows), gold)
        english = sets.get(f"{family}-en")
        for name, own in sets.items():
            yield own
            if english and own is not english and own.gold == english.gold:
                yield Retrieval(f"{name}->en", own.queries, english.passages, own.gold)


def _vital(folder: Path) -> Iterator[EvalSet]:
    for path in _files(folder, "vital-retrieval.jsonl").values():
        rows = [row for row in _objects(path, "lang", "desc", "p") if row["desc"]]
        for lang in sorted({row["lang"] for row in rows}):
            own = [row for row in rows if row["lang"] == lang]
            queries, passages = (tuple(row[key] for row in own) for key in ("desc", "p"))
            yield Retrieval(f"vital-{lang}", queries, passages, tuple(range(len(own))))


def _labelled(folder: Path) -> Iterator[EvalSet]:
    files = _files(folder, "sib200-*.tsv", "labels-*.tsv", "banking77-*.tsv")
    for name, path in files.items():
        stem, _, part = name.rpartition("-")
        tests = [f"{stem}-{end}" for end in ("test", "dev") if f"{stem}-{end}" in files]
        if part == "train" and tests:
            (train_labels, train), (labels, texts) = (_columns(p, 2, 1) for p in (path, files[tests[0]]))
            yield Labelled(stem, train, train_labels, texts, labels)


def _long(folder: Path) -> Iterator[EvalSet]:
    for name, path in _files(folder, "long-*.jsonl").items():
        rows = _objects(path, "chunks", "questions")
        yield documents(name, [(tuple(row["chunks"]), row["questions"]) for row in rows])
    for name, path in _files(folder, "xquad-*.jsonl").items():
        rows = _objects(path, "context", "questions")
        articles = [rows[i : i + ARTICLE] for i in range(0, len(rows), ARTICLE)]
        listed = [(tuple(r["context"] for r in part), [r["questions"] for r in part]) for part in articles]
        yield documents(f"long-{name}", listed)
    for data in (*_asked(folder), *_vital(folder)):
        if isinstance(data, Retrieval) and "->" not in data.name:
            parts = tuple(_sentences(passage) for passage in data.passages)
            yield Documents(f"sentences-{data.name}", parts, data.queries, tuple((gold, None) for gold in data.gold))


def _sentences(text: str) -> Texts:
    """A text's sentences, by their marks; enough to measure with."""
    return tuple(filter(None, (part.strip() for part in SENTENCE_END.split(text))))


def documents(name: str, listed: Iterable[tuple[Texts, list[list[str]]]]) -> Documents:
    """From the chunks of each document, and the questions of each chunk."""
    rows = list(listed)
    asked = [
        (question, (number, chunk))
        for number, (_, questions) in enumerate(rows)
        for chunk, some in enumerate(questions)
        for question in some
    ]
    return Documents(name, tuple(chunks for chunks, _ in rows), tuple(q for q, _ in asked), tuple(g for _, g in asked))


READERS: tuple[Callable[[Path], Iterator[EvalSet]], ...] = (_graded, _bitext, _asked, _vital, _labelled, _long)
