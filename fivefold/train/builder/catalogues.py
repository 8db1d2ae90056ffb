"""What programs say, in many languages: the gettext catalogues of Debian's packages.

A message is the same segment in whatever packages and menus it occurs; the first translation is taken. Taken are sentences and
long labels: what is plural, code, a list of options or a name of few words is passed over.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

from fivefold.train.builder.archives import members, unreadable
from fivefold.train.builder.rows import Aligned, Wanted, clean, language

CATALOGUE = r".*/[^/]+/LC_MESSAGES/[^/]+\.mo"
LITTLE_ENDIAN = b"\xde\x12\x04\x95"
CONTEXT, PLURAL = "\4", "\0"
CHARSET = re.compile(rb"charset=([\w-]+)")

FEWEST_WORDS, LONGEST = 3, 500
LETTERS = 0.82
"""Share of an English message that is letters at least, spaces and punctuation aside; of a translation half as much."""
SHORTEST_TRANSLATION, LONGEST_TRANSLATION = 0.15, 4
"""Characters for one of the English message."""

INLINE = re.compile(
    r"</?(?:a|b|big|code|em|emphasis|font|i|small|span|strong|su[bp]|tt|u|[a-z]*command|filename|link)(?: [^<>]*)?>",
    re.I,
)
BLOCK = re.compile(
    r"</?(?:br|center|div|h\d|item|li|list|nl|note|ol|p|para|qt|t[dhr]|table|title|ul|html|body)(?: [^<>]*)?/?>", re.I
)
ENTITY = re.compile(r"&#?\w+;")
MNEMONIC = re.compile(r"\s*\([_&~]\w\)|[_&~](?=[^\W\d_])")
"""Of a menu's entry: a mark before a letter, or the letter itself behind the text where its script has no such letter."""
CODE = re.compile(r"[<>|\\=~^`#_\t\ufffd]|&[&\w]|://|\S@\S|(?:^|\s)-(?:-\w|\w\b)|\w\.\w+\.\w|\w\(\)|(?<!\d)%[A-Z]{2}")
FORMAT = re.compile(
    r"%(?:\d+\$)?'?(?:[-+]?\d+)?(?:\.\d+|\.\*)?(?:hh?|ll?|[jztLq])?[a-zA-Z%]|%\(\w+\)[a-z]|%[LP]?\d+|\{[^{}]*\}|\$\{?\w+\}?|@\w+@?"
)
WORD = re.compile(r"[^\W\d_]\S*")
PUNCTUATION = re.compile(r"[\s.,;:!?'\"-]+")
SIGNS = re.compile(r"[\s\d!-/:-@\[-`{-~]+")


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Aligned]:
    """A segment for every message that is fit, over all packages."""
    segments: dict[str, dict[str, str]] = {}
    known: dict[str, str] = {}
    for path in paths:
        for member, file in members(path, CATALOGUE):
            lang = language(member.split("/")[-3])
            if lang not in wanted.languages or lang == "en":
                continue
            for message, translation in entries(path, file.read()):
                english = known[message] if message in known else known.setdefault(message, sentence(message))
                if english and lang not in segments.get(english, ()) and (text := translated(english, translation)):
                    segments.setdefault(english, {})[lang] = text
    for english, texts in segments.items():
        yield Aligned("mo", dict(sorted({"en": english, **texts}.items())))


def sentence(message: str) -> str:
    """An English message as it is read on the screen; nothing where it is not fit."""
    text = _plain(message.rpartition(CONTEXT)[2])
    words = WORD.findall(FORMAT.sub("", text))
    fit = len(words) >= FEWEST_WORDS and len(text) <= LONGEST and _letters(text) >= LETTERS
    return text if fit else ""


def translated(english: str, translation: str) -> str:
    """A translation as it is read on the screen; nothing where it is not one, or has not the same places for values."""
    text = _plain(translation)
    fit = (
        text.casefold() != english.casefold()
        and SHORTEST_TRANSLATION <= len(text) / len(english) <= LONGEST_TRANSLATION
        and _letters(text) >= LETTERS / 2
        and sorted(FORMAT.findall(text)) == sorted(FORMAT.findall(english))
    )
    return text if fit else ""


def _plain(text: str) -> str:
    """Without markup and mnemonics; nothing where code is left, or several messages are in one."""
    if PLURAL in text:
        return ""
    text = ENTITY.sub(lambda entity: unescape(entity[0]), BLOCK.sub(" ", INLINE.sub("", text)))
    marked, marks = MNEMONIC.subn("", text)
    text = clean(marked if marks == 1 else text)
    return "" if CODE.search(text) else text


def _letters(text: str) -> float:
    whole = PUNCTUATION.sub("", text)
    return len(SIGNS.sub("", whole)) / len(whole) if whole else 0.0


def entries(path: Path, raw: bytes) -> Iterator[tuple[str, str]]:
    """(message, translation) of a catalogue but its header, as the GNU gettext manual describes the format of .mo files.

    Raises:
        JobError: it is torn, or no catalogue.
    """
    order = "<" if raw.startswith(LITTLE_ENDIAN) else ">"
    try:
        count, *tables = struct.unpack_from(order + "3I", raw, 8)
        messages, translations = (_strings(raw, order, table, count) for table in tables)
        header = translations[0] if messages and not messages[0] else b""
        charset = codecs.lookup(match[1].decode() if (match := CHARSET.search(header)) else "utf-8")
    except (struct.error, LookupError) as error:
        raise unreadable(path, error) from None
    for message, translation in zip(messages, translations, strict=True):
        if message:
            yield charset.decode(message, "replace")[0], charset.decode(translation, "replace")[0]


def _strings(raw: bytes, order: str, table: int, count: int) -> list[bytes]:
    """A table of `count` times (length, offset), followed."""
    places = struct.unpack_from(f"{order}{2 * count}I", raw, table)
    return [
        struct.unpack_from(f"{length}s", raw, offset)[0]
        for length, offset in zip(places[::2], places[1::2], strict=True)
    ]
