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
    r'<(?P<tag>h[1-6]|p) id="(?P<id>[^"]+)"(?! class="(?:smath)?code)[^>]*>(?P<text>.*?)</(?P=tag)>'
    r'|<meta itemprop="keywords" content="(?P<word>[^"]*)"',
    re.DOTALL,
)
LINE_BREAK, TAG = re.compile(r"<br[^>]*>"), re.compile(r"<[^>]*>")
END = re.compile('<div class="relatedtopics">|<div id="SearchFrame">')
SWITCH, SPAN = re.compile(r'<span\b[^>]* class="switchinline"[^>]*>'), re.compile(r"<span\b[^>]*>|</span>")
OTHERS, MAC = ' id="default', ' class="MAC"'
"""What stands for all systems or programs that a switch does not name, and what stands for one."""
CODE = re.compile(r"[<>{}\\]|^=|\w\(\)|[A-Za-z_]\.\w+\.[A-Za-z]|\w\([^ )]*;")
"""Of formulas, paths and calls; a segment has none, as there is little in it to translate."""
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
                    if len(source) >= SHORTEST_SEGMENT and not CODE.search(source) and (lang == "en" or text != source):
                        segments.setdefault(source, {}).setdefault(lang, text)
                yield from _asked(section, page, lang, english)
    for texts in segments.values():
        yield Aligned("lohelp", dict(sorted(texts.items())))


def _asked(section: Section, page: str, lang: str, english: Texts) -> Iterator[Asked]:
    (_, heading), *paragraphs = section.blocks
    own = [text for key, text in paragraphs if lang == "en" or english.get((page, key)) != text]
    passage = clipped(" ".join(text for text in own if text != heading))
    if len(passage) < SHORTEST_PASSAGE or len(paragraphs) - len(own) > ENGLISH * len(paragraphs):
        return
    yield Asked("lohelp", lang, section.heading, passage, page)
    if section.word:
        yield Asked("lohelp_kw", lang, section.word, passage, page)


def _sections(page: str) -> Iterator[Section]:
    """A page from heading to heading; what stands before the first one is navigation, as are links to related pages."""
    title, section = "", Section()
    for block in BLOCK.finditer(_switched(END.split(page, 1)[0])):
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


def _switched(page: str) -> str:
    """One alternative of every switch within a line, between systems or programs, all of which are in the page."""
    start = 0
    while switch := SWITCH.search(page, start):
        start = switch.start()
        alternatives, end = _alternatives(page, switch.end())
        kept = [text for name, text in alternatives if OTHERS in name]
        kept += [text for name, text in alternatives if MAC not in name]
        page = page[:start] + "".join(kept[:1]) + page[end:]
    return page


def _alternatives(page: str, start: int) -> tuple[list[tuple[str, str]], int]:
    """(tag, content) of the spans within the one whose content begins at `start`, and where that one ends."""
    found: list[tuple[str, str]] = []
    tag, begin, depth = "", start, 0
    for span in SPAN.finditer(page, start):
        if span[0] != "</span>":
            if not depth:
                tag, begin = span[0], span.end()
            depth += 1
        elif not depth:
            return found, span.end()
        else:
            depth -= 1
            if not depth:
                found.append((tag, page[begin : span.start()]))
    return found, begin
