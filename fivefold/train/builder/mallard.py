"""GNOME's manuals, page by page in many languages: Debian's gnome-user-docs.

Blocks of a page keep their order in translation, so pages with equally many are aligned block by block. What is not translated
stands there in English, and is passed over.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Aligned, Asked, Wanted, clean, clipped, language

ROOT = "usr/share/help/"
SHORTEST_SEGMENT, SHORTEST_PASSAGE = 12, 60
SPACE, CONDITION = "{http://projectmallard.org/1.0/}", "{http://projectmallard.org/if/1.0/}"
BETWEEN = {SPACE + "keyseq": " ", SPACE + "guiseq": " ▸ "}
"""What stands between the keys that are pressed and the entries of menus that are chosen."""
APART = {SPACE + name for name in ("title", "info", "section", "links", "media")}
"""Parts of a section that are none of its text."""
BLOCKS = {SPACE + name for name in ("p", "title")}
ENGLISH = 0.3
"""Share of a section's blocks that may be English still."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its description, the headings of its sections with their blocks, and the blocks of all of it."""

    id: str
    description: str
    sections: Sequence[tuple[str, Sequence[str]]]
    blocks: Sequence[str]


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Aligned | Asked]:
    """Headings ask for sections, descriptions and titles for the page; blocks are segments."""
    segments: dict[str, list[dict[str, str]]] = {}
    known: dict[str, frozenset[str]] = {}
    for _, page in _pages(paths[0], "C", wanted):
        segments[page.id] = [{"en": text} for text in page.blocks]
        known[page.id] = frozenset((*page.blocks, page.description))
        yield from _asked("en", page, ())
    for lang, page in _pages(paths[0], "(?!C/)[^/]+", wanted):
        yield from _asked(lang, page, known.get(page.id, ()))
        aligned = segments.get(page.id, [])
        if len(aligned) == len(page.blocks):
            for segment, text in zip(aligned, page.blocks, strict=True):
                if text != segment["en"]:
                    segment.setdefault(lang, text)
    for segment in (segment for page_segments in segments.values() for segment in page_segments):
        if len(segment["en"]) >= SHORTEST_SEGMENT:
            yield Aligned("help", dict(sorted(segment.items())))


def _pages(path: Path, codes: str, wanted: Wanted) -> Iterator[tuple[str, Page]]:
    """(language, page) of the folders whose names are as `codes`."""
    for member, file in members(path, f"{ROOT}{codes}/.*\\.page"):
        code, _, name = member.removeprefix(ROOT).partition("/")
        if language(code) in wanted.languages:
            yield language(code), _page(f"/{name}", ET.parse(file).getroot())


def _page(name: str, root: ET.Element) -> Page:
    _decide(root)
    for element in root.iter():
        for part in list(element)[:-1] if element.tag in BETWEEN else ():
            part.tail = BETWEEN[element.tag]
    description = root.find(f"{SPACE}info/{SPACE}desc")
    return Page(name, "" if description is None else _text(description), list(_sections(root, "")), _blocks(root))


def _decide(root: ET.Element) -> None:
    """Empty what is shown under conditions that a plain desktop does not meet, as `platform:gnome-classic`; `!` is "not"."""
    hidden = [element for element in root.iter() if not _met(element.get(CONDITION + "test", ""))]
    for choice in root.iter(CONDITION + "choose"):
        taken = next((way for way in choice if _met(way.get("test", ""))), None)
        hidden += [way for way in choice if way is not taken]
    for element in hidden:
        tail = element.tail
        element.clear()
        element.tail = tail


def _met(test: str) -> bool:
    return all(condition.startswith("!") for condition in re.split("[ ,]+", test) if condition)


def _sections(element: ET.Element, above: str) -> Iterator[tuple[str, Sequence[str]]]:
    """(heading, blocks) of a page or section and of those within; headings stand behind the page's title."""
    title = element.find(SPACE + "title")
    own = "" if title is None else _text(title)
    blocks = [block for child in element if child.tag not in APART for block in _blocks(child)]
    yield f"{above}: {own}" if above else own, blocks
    for child in element.findall(SPACE + "section"):
        yield from _sections(child, above or own)


def _blocks(element: ET.Element) -> list[str]:
    """Their texts, but of those with a link that has no words of its own: it is shown by the title of where it leads."""
    blocks = [part for part in element.iter() if part.tag in BLOCKS and not any(map(_bare, part.iter(SPACE + "link")))]
    return [text for block in blocks if (text := _text(block))]


def _bare(link: ET.Element) -> bool:
    return not _text(link)


def _text(element: ET.Element) -> str:
    return clean("".join(element.itertext()))


def _asked(lang: str, page: Page, english: Collection[str]) -> Iterator[Asked]:
    """`english` are the blocks and the description of the English page; none for that page itself."""
    sections = [(heading, _passage(blocks, english)) for heading, blocks in page.sections]
    long = [(heading, text) for heading, text in sections if len(text) >= SHORTEST_PASSAGE]
    for heading, text in long:
        yield Asked("help", lang, heading, clipped(text), page.id)
    if page.description and page.description not in english:
        if len(page.description) >= SHORTEST_PASSAGE:
            yield Asked("help", lang, page.sections[0][0], page.description, page.id)
        for _, text in long[:1]:
            yield Asked("help_desc", lang, page.description, clipped(text), page.id)


def _passage(blocks: Sequence[str], english: Collection[str]) -> str:
    """Blocks but those that are English still; nothing where these are many."""
    own = [block for block in blocks if block not in english]
    return " ".join(own) if len(blocks) - len(own) <= ENGLISH * len(blocks) else ""
