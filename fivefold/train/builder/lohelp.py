"""LibreOffice's help, whose paragraphs have the same ids in every language: Debian's libreoffice-help packages.

What is not translated stands there in English, and is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Aligned, Asked, Wanted, clean, clipped, language

ROOT = "usr/share/libreoffice/help/"
BLOCK = re.compile(
    r'<(?P<tag>h[1-6]|p) id="(?P<id>[^"]+)"[^>]*>(?P<text>.*?)</(?P=tag)>'
    r'|<meta itemprop="keywords" content="(?P<word>[^"]*)"',
    re.DOTALL,
)
LINE_BREAK, TAG = re.compile(r"<br[^>]*>"), re.compile(r"<[^>]*>")
FOOTER = '<div id="SearchFrame">'
SHORTEST_SEGMENT, SHORTEST_PASSAGE = 12, 60
ENGLISH = 0.3
"""Share of a section's paragraphs that may be English still."""

Texts = dict[tuple[str, str], str]
"""(page, id of a paragraph) -> English text."""


@dataclass(slots=True)
class Section:
    """A heading behind its page's title, a word of the index that leads here, and (id, text) of its paragraphs."""

    heading: str = ""
    word: str = ""
    blocks: list[tuple[str, str]] = field(default_factory=list)


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Aligned | Asked]:
    """Headings and words of the index ask for sections; every paragraph is a segment. The first package is the English one."""
    english: Texts = {}
    segments: dict[str, dict[str, str]] = {}
    for path in paths:
        for member, file in members(path, ROOT + r"[^/]+/text/.*\.html"):
            code, _, page = member.removeprefix(ROOT).partition("/text/")
            lang = language(code)
            if lang not in wanted.languages:
                continue
            for section in _sections(file.read().decode("utf-8")):
                for key, text in section.blocks:
                    if lang == "en":
                        english[page, key] = text
                    source = english.get((page, key), "")
                    if len(source) >= SHORTEST_SEGMENT and (lang == "en" or text != source):
                        segments.setdefault(source, {}).setdefault(lang, text)
                yield from _asked(section, page, lang, english)
    for texts in segments.values():
        yield Aligned("lohelp", dict(sorted(texts.items())))


def _asked(section: Section, page: str, lang: str, english: Texts) -> Iterator[Asked]:
    paragraphs = section.blocks[1:]
    passage = clipped(" ".join(text for _, text in paragraphs))
    same = sum(english.get((page, key)) == text for key, text in paragraphs)
    if len(passage) < SHORTEST_PASSAGE or (lang != "en" and same > ENGLISH * len(paragraphs)):
        return
    yield Asked("lohelp", lang, section.heading, passage, page)
    if section.word:
        yield Asked("lohelp_kw", lang, section.word, passage, page)


def _sections(page: str) -> Iterator[Section]:
    """A page from heading to heading; what stands before the first one is navigation."""
    title, section = "", Section()
    for block in BLOCK.finditer(page.partition(FOOTER)[0]):
        if block["word"]:
            section.word = section.word or clean(unescape(block["word"]))
            continue
        text = clean(unescape(TAG.sub("", LINE_BREAK.sub(" ", block["text"] or ""))))
        if block["tag"] != "p" and text:
            word = "" if section.heading else section.word
            if section.heading:
                yield section
            section = Section(f"{title}: {text}" if title else text, word)
            title = title or text
        if text:
            section.blocks.append((block["id"], text))
    if section.heading:
        yield section
