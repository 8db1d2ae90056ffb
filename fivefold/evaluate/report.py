"""Scores as a table for people, and as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from fivefold.evaluate.board import Score

Column = tuple[str, int]
"""A way and a number of dimensions."""


def means(scores: Iterable[Score]) -> dict[str, dict[Column, float]]:
    """Group -> column -> mean over the group's sets."""
    values: dict[str, dict[Column, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        values[score.group][score.way, score.dims].append(score.value)
    return {group: {column: fmean(v) for column, v in columns.items()} for group, columns in values.items()}


def columns(scores: Iterable[Score]) -> list[Column]:
    """In the order they were measured."""
    return list(dict.fromkeys((score.way, score.dims) for score in scores))


def table(scores: Sequence[Score]) -> str:
    """Markdown: a row for each set and metric, and the means of each family of sets before them."""
    heads = columns(scores)
    cells: dict[str, Mapping[Column, float]] = {f"**{group}**": row for group, row in means(scores).items()}
    by_set: dict[str, dict[Column, float]] = defaultdict(dict)
    for score in scores:
        by_set[f"{score.set} {score.metric}"][score.way, score.dims] = score.value
    lines = ["| set | " + " | ".join(f"{way}, {dims}" for way, dims in heads) + " |", "|---|" + "---:|" * len(heads)]
    for name, row in {**cells, **by_set}.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[h]:.4f}" if h in row else "" for h in heads) + " |")
    return "\n".join(lines)


def document(scores: Sequence[Score], *, model: str) -> dict[str, Any]:
    """Everything, for a file."""
    listed = [
        {"group": group, "way": way, "dims": dims, "value": round(value, 5)}
        for group, row in means(scores).items()
        for (way, dims), value in row.items()
    ]
    return {
        "model": model,
        "means": listed,
        "scores": [{**asdict(score), "value": round(score.value, 5)} for score in scores],
    }
