"""People's own training text: JSONL files, each of one or several forms of row.

    pairs       {"query": ..., "passage": ...}, and "negative": text or "negatives": [texts] where there are any
    scored      {"first": ..., "second": ..., "score": number}
    labelled    {"text": ..., "label": ...}
    texts       {"text": ...}, for masked words and distillation

Any row may say its "lang". The names that sentence-transformers uses are read as well. Rows of one file, language and number
of negatives are one set, of which batches are made.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fivefold.errors import InputError
from fivefold.train.corpora import Graded, Labelled, Pair

Row: TypeAlias = Pair | Graded | Labelled
ALIASES: Mapping[str, Sequence[str]] = {
    "query": ("query", "anchor", "question"),
    "passage": ("passage", "positive", "answer"),
    "negatives": ("negatives", "negative"),
    "first": ("first", "sentence1", "text1"),
    "second": ("second", "sentence2", "text2"),
    "score": ("score",),
    "text": ("text", "sentence"),
    "label": ("label",),
}


def read_rows(paths: Iterable[Path]) -> dict[str, list[Row]]:
    """Rows by set: the file's name, its language and the number of negatives.

    Raises:
        InputError: a file that is not there or empty, or a row of no known form, with its number.
    """
    sets: dict[str, list[Row]] = defaultdict(list)
    for path in paths:
        for number, raw in _objects(Path(path)):
            row = _row(raw, f"{path}, row {number}")
            negatives = len(row.negatives) if isinstance(row, Pair) else 0
            sets["-".join(filter(None, (Path(path).stem, row.lang, f"{negatives}n" if negatives else "")))].append(row)
    if not sets:
        raise InputError("there is no row to train on; give JSONL files with text")
    return dict(sets)


def read_texts(paths: Iterable[Path]) -> list[str]:
    """The texts of files, one a line, or of the key "text" of JSONL files."""
    texts = []
    for path in map(Path, paths):
        if path.suffix == ".jsonl":
            texts += [_named(raw, "text", f"{path}, row {number}") for number, raw in _objects(path)]
        else:
            texts += [line for line in (line.strip() for line in _lines(path)) if line]
    if not texts:
        raise InputError("there is no text to train on; give files with one text a line, or JSONL")
    return texts


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise InputError(f"{path} is not a file; give files of training text")
    with path.open(encoding="utf-8") as lines:
        yield from lines


def _objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, row {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number} is not a JSON object")
        yield number, row


def _find(raw: Mapping[str, Any], name: str) -> Any:
    return next((raw[alias] for alias in ALIASES[name] if raw.get(alias) is not None), None)


def _named(raw: Mapping[str, Any], name: str, where: str) -> str:
    value = _find(raw, name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name!r} must be a text, got {value!r}")
    return value


def _row(raw: Mapping[str, Any], where: str) -> Row:
    for keys, build in FORMS.items():
        if all(_find(raw, key) is not None for key in keys):
            return build(raw, where)
    raise InputError(
        f"{where} has the keys {', '.join(raw)}; needed are query and passage, first, second and score, or text and label"
    )


def _pair(raw: Mapping[str, Any], where: str) -> Row:
    negatives = _find(raw, "negatives") or ()
    listed = [negatives] if isinstance(negatives, str) else negatives
    if not isinstance(listed, list | tuple) or not all(isinstance(text, str) and text.strip() for text in listed):
        raise InputError(f"{where}: negatives must be a list of texts, got {negatives!r}")
    query, passage = _named(raw, "query", where), _named(raw, "passage", where)
    return Pair(str(raw.get("lang", "")), query, passage, negatives=tuple(listed))


def _graded(raw: Mapping[str, Any], where: str) -> Row:
    score = _find(raw, "score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise InputError(f"{where}: score must be a number, got {score!r}")
    return Graded(str(raw.get("lang", "")), _named(raw, "first", where), _named(raw, "second", where), float(score))


def _labelled(raw: Mapping[str, Any], where: str) -> Row:
    return Labelled(str(raw.get("lang", "")), _named(raw, "text", where), str(_find(raw, "label")))


FORMS: Mapping[tuple[str, ...], Callable[[Mapping[str, Any], str], Row]] = {
    ("query", "passage"): _pair,
    ("first", "second", "score"): _graded,
    ("text", "label"): _labelled,
}
"""The keys that make a row one of a form, and how it is read."""
