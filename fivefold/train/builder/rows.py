"""Rows as the files of the corpora hold them, and what every reader does to text: spaces, lengths, language codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

LANGUAGES = tuple(
    "ar bg bn ca cs da de el en es fa fi fr he hi hu id it ja ka ko lv nb nl nn pl pt ro ru sk sv th tr uk ur vi zh".split()
)
"""The languages that are kept: the 30 tuned ones and a few of their neighbours."""
LISTED = (*LANGUAGES, "pt_BR", "zh_CN")
"""As apt's lists name them."""
RENAMED = {"c": "en", "en-us": "en", "no": "nb", "pt-br": "pt", "zh-cn": "zh"}
"""Codes of packages to ours; other regional forms are languages of their own, which are not kept."""
LONGEST_PASSAGE = 1200
UNSEEN = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
"""Soft hyphens, spaces without width, marks of direction. Joiners stay: words of Persian and Hindi have them."""
FILES = ("par.jsonl.xz", "pairs_asym.jsonl.xz", "labels.jsonl.xz", "lex.jsonl.xz")


@dataclass(frozen=True, slots=True)
class Aligned:
    """One text in several languages, English among them."""

    file: ClassVar[str] = FILES[0]
    source: str
    texts: Mapping[str, str]

    @property
    def languages(self) -> tuple[str, ...]:
        """Of its texts."""
        return tuple(self.texts)

    @property
    def strings(self) -> tuple[str, ...]:
        """All text, in order."""
        return tuple(self.texts.values())

    def raw(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"src": self.source, "t": dict(self.texts)}


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and the passage that answers it; `id` is the document's."""

    file: ClassVar[str] = FILES[1]
    source: str
    lang: str
    query: str
    passage: str
    id: str = ""
    label: str = ""

    @property
    def languages(self) -> tuple[str, ...]:
        """Of its texts."""
        return (self.lang,)

    @property
    def strings(self) -> tuple[str, ...]:
        """All text, in order."""
        return (self.query, self.passage)

    def raw(self) -> dict[str, Any]:
        """As the file holds it."""
        optional = {name: value for name, value in (("id", self.id), ("label", self.label)) if value}
        return {"src": self.source, "lang": self.lang, "q": self.query, "p": self.passage, **optional}


@dataclass(frozen=True, slots=True)
class Classed:
    """A text of a class; `id` is the document's."""

    file: ClassVar[str] = FILES[2]
    source: str
    lang: str
    text: str
    label: str
    id: str = ""

    @property
    def languages(self) -> tuple[str, ...]:
        """Of its text."""
        return (self.lang,)

    @property
    def strings(self) -> tuple[str, ...]:
        """All text, in order."""
        return (self.text,)

    def raw(self) -> dict[str, Any]:
        """As the file holds it."""
        optional = {"id": self.id} if self.id else {}
        return {"task": self.source, "lang": self.lang, "text": self.text, "label": self.label, **optional}


@dataclass(frozen=True, slots=True)
class Paired:
    """A word and its translation."""

    file: ClassVar[str] = FILES[3]
    source: str
    first: str
    second: str
    word: str
    translation: str

    @property
    def languages(self) -> tuple[str, ...]:
        """Of its words."""
        return (self.first, self.second)

    @property
    def strings(self) -> tuple[str, ...]:
        """All text, in order."""
        return (self.word, self.translation)

    def raw(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"src": self.source, "a": self.first, "b": self.second, "x": self.word, "y": self.translation}


Row: TypeAlias = Aligned | Asked | Classed | Paired


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader may leave out already, and the seed of what it draws."""

    languages: frozenset[str] = field(default_factory=lambda: frozenset(LANGUAGES))
    seed: int = 0


Reader: TypeAlias = Callable[[Sequence[Path], Wanted], Iterator[Row]]
"""The packages' files, in the order of the table of sources, to rows."""


def language(code: str) -> str:
    """A package's code for a language as ours."""
    plain = code.replace("_", "-").lower()
    return RENAMED.get(plain, plain)


def clean(text: str) -> str:
    """Single spaces, and no characters that only steer how a line is set."""
    return " ".join(UNSEEN.sub("", text).split())


def clipped(text: str, longest: int = LONGEST_PASSAGE) -> str:
    """Its beginning, up to a space where there is one in the last fifth."""
    if len(text) <= longest:
        return text
    head = text[:longest]
    space = head.rfind(" ", longest * 4 // 5)
    return head[:space] if space > 0 else head
