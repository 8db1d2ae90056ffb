"""Words and their translations, from Wiktionary: those of Debian's dict-freedict packages that WikDict makes.

An entry is a line with the word, how it is spoken and what part of speech it is, a line with translations, and further lines
that explain.
"""

from __future__ import annotations

import gzip
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Paired, Wanted, clean

CODES = dict(
    bul="bg", deu="de", ell="el", eng="en", fin="fi", fra="fr", ind="id", ita="it", jpn="ja",
    nld="nl", nor="nb", pol="pl", por="pt", rus="ru", spa="es", swe="sv", tur="tr",
)  # fmt: skip
HEAD = re.compile(r"(?P<word>[^/<>]+?)(?: /.*/)? <[^<>]+>")
NUMBER = re.compile(r"^1\. ")
MARKS = re.compile("\\[\\[|\\]\\]|[\u0300\u0301]")
"""Of links, and of the stress in words that are written without."""
LONGEST = 40


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Paired]:
    """Each word with the first of its translations."""
    for path in paths:
        for member, file in members(path, r"usr/share/dictd/freedict-...-...\.dict\.dz"):
            first, second = (CODES[code] for code in member[-15:-8].split("-"))
            if {first, second} <= wanted.languages:
                with gzip.open(file) as raw:
                    for word, translation in _entries(io.TextIOWrapper(raw, encoding="utf-8")):
                        yield Paired("freedict", first, second, word, translation)


def _entries(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    head = None
    for line in lines:
        if head is not None:
            word, translation = _plain(head["word"]), _plain(NUMBER.sub("", line).split(", ")[0])
            if translation and max(len(translation), len(word)) <= LONGEST:
                yield word, translation
        head = HEAD.fullmatch(line.rstrip("\n")) if head is None else None


def _plain(text: str) -> str:
    return clean(MARKS.sub("", unicodedata.normalize("NFC", text)))
