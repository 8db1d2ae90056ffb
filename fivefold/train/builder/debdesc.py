"""Descriptions of Debian's packages in many languages: apt's lists. They have the licences of the packages, often the GPL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fivefold.train.builder.rows import Aligned, Asked, Wanted, clean, clipped, language

SHORTEST_PASSAGE = 40
LIST = re.compile(r".*_Translation-([A-Za-z_]+)$")
FIELD = re.compile(r"^Description-md5: (\S+)\nDescription-[^:]+: (.*)\n((?: .*\n?)*)", re.MULTILINE)


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Aligned | Asked]:
    """The short description asks for the long one; short ones of the same package are a segment."""
    segments: dict[str, dict[str, str]] = {}
    for path in sorted(paths[0].iterdir(), key=lambda path: ("_Translation-en" not in path.name, path.name)):
        match = LIST.fullmatch(path.name)
        lang = language(match[1]) if match else ""
        if lang in wanted.languages:
            for digest, short, long in _descriptions(path):
                if lang == "en" or digest in segments:
                    segments.setdefault(digest, {}).setdefault(lang, short)
                if len(long) >= SHORTEST_PASSAGE:
                    yield Asked("debdesc", lang, short, clipped(long), digest)
    for texts in segments.values():
        yield Aligned("debdesc_short", dict(sorted(texts.items())))


def _descriptions(path: Path) -> Iterator[tuple[str, str, str]]:
    """(digest of the English text, short description, long one)."""
    entry: list[str] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                entry.append(line)
                continue
            yield from _entry(entry)
            entry = []
    yield from _entry(entry)


def _entry(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for digest, short, long in FIELD.findall("".join(lines)):
        yield digest, clean(short), clean(re.sub(r"^ \.$", "", long, flags=re.MULTILINE))
