"""Names of characters and emoji in many languages: npm's cldr-annotations-full."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Aligned, Wanted, clean, language


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Aligned]:
    """A segment for every character: its spoken name."""
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for member, file in members(paths[0], r"package/annotations/[^/]+/annotations\.json"):
        lang = language(member.split("/")[2])
        if lang in wanted.languages:
            for character, entry in json.load(file)["annotations"]["annotations"].items():
                for name in entry.get("tts", ())[:1]:
                    names[character].setdefault(lang, clean(name))
    for character in sorted(names):
        yield Aligned("cldr", dict(sorted(names[character].items())))
