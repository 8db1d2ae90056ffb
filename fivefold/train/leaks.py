"""Is any text of the evaluation sets among the training text? Exactly, after normalising, or nearly.

Normalised means NFKC, lower case, letters and digits alone. Two texts are nearly the same where most runs of three
words of the shorter one (of three characters, in scripts without spaces) occur in the other.
"""

from __future__ import annotations

import json
import lzma
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivefold.errors import InputError

RUN = 3
MIN_RUNS = 4
"""Shorter texts are compared exactly only: much is said in five words by chance."""
MIN_CHARACTERS = 12
"""Exact matches of less are no leak: a label, a name, a number."""
COMMON = 200
"""Runs that more evaluation texts have than this tell nothing."""
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""A letter of Thai, Lao, Burmese, Khmer, Japanese or Chinese."""
SUFFIXES = (".jsonl", ".tsv", ".txt")
NO_TEXT = ("id",)
NO_TRAINING_TEXT = ("id", "label")
"""Keys of rows. No model reads the name of a class, and sets that are evaluated on may have classes in common with training."""
Runs = frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Leak:
    """A training text, where it stands, and the evaluation text that it repeats, exactly or nearly."""

    where: str
    text: str
    kind: str
    evaluation: str


def find_leaks(corpora: Iterable[Path], sets: Iterable[Path], *, near: float = 0.8) -> list[Leak]:
    """Every training text that repeats one of the evaluation texts.

    Raises:
        InputError: a path that is not there, or no evaluation text at all.
    """
    index = Index((text for path in sets for _, text in read_strings(path)), near=near)
    strings = (string for path in corpora for string in read_strings(path, NO_TRAINING_TEXT))
    return [leak for where, text in strings if (leak := index.leak(where, text))]


class Index:
    """The evaluation texts, by their normal form and by their runs."""

    def __init__(self, texts: Iterable[str], *, near: float) -> None:
        self.near = near
        self.texts = {form: text for text in texts if len(form := normalised(text)) >= MIN_CHARACTERS}
        if not self.texts:
            raise InputError("there is no evaluation text to look for; name the files or folders that hold it")
        self.runs = {form: found for form in self.texts if len(found := runs(form)) >= MIN_RUNS}
        self.owners: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for form, found in self.runs.items():
            for run in found:
                self.owners[run].append(form)

    def leak(self, where: str, text: str) -> Leak | None:
        """What a training text repeats, if anything."""
        form = normalised(text)
        if form in self.texts:
            return Leak(where, text, "the same as", self.texts[form])
        own = runs(form)
        if len(own) < MIN_RUNS:
            return None
        shared: dict[str, int] = defaultdict(int)
        for run in own:
            owners = self.owners.get(run, ())
            if len(owners) <= COMMON:
                for owner in owners:
                    shared[owner] += 1
        for owner, count in shared.items():
            if count >= self.near * min(len(own), len(self.runs[owner])):
                return Leak(where, text, "nearly the same as", self.texts[owner])
        return None


def normalised(text: str) -> str:
    """NFKC, lower case, single spaces, letters, digits and marks alone."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return re.sub(r"[\W_]+", " ", plain).strip()


def runs(form: str) -> Runs:
    """The runs of words of a normal form, or of characters in a script without spaces."""
    units = list(form.replace(" ", "")) if UNSPACED.search(form) else form.split()
    return frozenset(tuple(units[i : i + RUN]) for i in range(len(units) - RUN + 1))


def read_strings(path: Path, but: Sequence[str] = NO_TEXT) -> Iterator[tuple[str, str]]:
    """Where it stands and what it is, for every string of a file, or of the files of a folder; not those of the keys `but`."""
    if path.is_dir():
        for file in sorted(file for file in path.iterdir() if file.name.removesuffix(".xz").endswith(SUFFIXES)):
            yield from read_strings(file, but)
        return
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder")
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            for text in _strings(path, line.rstrip("\n"), but):
                yield f"{path.name}, row {number}", text


def _strings(path: Path, line: str, but: Sequence[str]) -> Iterator[str]:
    if ".jsonl" in path.suffixes:
        yield from _values(json.loads(line), but) if line.strip() else ()
    elif ".tsv" in path.suffixes:
        yield from line.split("\t")
    else:
        yield line


def _values(value: Any, but: Sequence[str]) -> Iterator[str]:
    """The strings within a JSON value; keys are none of it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _values(item, but)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in but:
                yield from _values(item, but)
