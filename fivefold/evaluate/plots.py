"""Scores as pictures: the Matryoshka curve, every adapter on every kind of set, quality by length."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fivefold.evaluate.board import Score
from fivefold.evaluate.report import columns, means

_LENGTH = re.compile(r"@\d+$")
"""Ending of the name of a set of documents of so many tokens."""


def draw(scores: Sequence[Score], folder: Path) -> list[Path]:
    """Write the pictures that the scores have something for; returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, picture in PICTURES.items():
        figure = picture(scores)
        if figure is not None:
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=120, bbox_inches="tight")
            drawn.append(path)
    return drawn


def matryoshka(scores: Sequence[Score]) -> Figure | None:
    """Share of the full score that is left at each number of dimensions."""
    widths = sorted({score.dims for score in scores})
    if len(widths) < 2:
        return None
    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for group, row in means(scores).items():
        way = next(iter(row))[0]
        whole = row.get((way, widths[-1]))
        points = {dims: row[way, dims] / whole for dims in widths if (way, dims) in row} if whole else {}
        if len(points) > 1:
            axes.plot(list(points), list(points.values()), marker="o", label=group)
    axes.set(xscale="log", xlabel="dimensions", ylabel="share of the full score")
    axes.set_xticks(widths, [str(dims) for dims in widths])
    axes.legend(fontsize="small")
    return figure


def matrix(scores: Sequence[Score]) -> Figure | None:
    """Every way on every family of sets; numbers are means, colours what is gained over the row's own mean."""
    heads = [column for column in columns(scores) if column[1] == max(score.dims for score in scores)]
    rows = means(scores)
    if len(heads) < 2:
        return None
    values = np.array([[row.get(head, np.nan) for head in heads] for row in rows.values()])
    figure = Figure(figsize=(1.3 * len(heads) + 3, 0.5 * len(rows) + 2))
    axes = figure.subplots()
    axes.imshow(values - np.nanmean(values, 1, keepdims=True), cmap="PiYG", aspect="auto")
    for (line, column), value in np.ndenumerate(values):
        axes.text(column, line, f"{value:.3f}", ha="center", va="center", fontsize="small")
    axes.set_xticks(range(len(heads)), [way for way, _ in heads], rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), list(rows))
    return figure


def lengths(scores: Sequence[Score]) -> Figure | None:
    """nDCG of documents by their length, read whole and as the mean of their chunks, in the first way and at full width."""
    some = [score for score in scores if _LENGTH.search(score.set) and score.metric in ("whole", "mean of chunks")]
    if not some:
        return None
    column = some[0].way, max(score.dims for score in some)
    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for metric in ("whole", "mean of chunks"):
        by_length: dict[int, list[float]] = {}
        for score in some:
            if score.metric == metric and (score.way, score.dims) == column:
                by_length.setdefault(int(score.set.rpartition("@")[2]), []).append(score.value)
        means_of = {tokens: np.mean(values) for tokens, values in sorted(by_length.items())}
        axes.plot(list(means_of), list(means_of.values()), marker="o", label=metric)
    axes.set(xscale="log", xlabel="tokens of a document", ylabel="nDCG@10")
    axes.set_xticks(list(by_length), [str(tokens) for tokens in by_length])
    axes.legend()
    return figure


PICTURES: dict[str, Callable[[Sequence[Score]], Figure | None]] = {
    "matryoshka": matryoshka,
    "adapters": matrix,
    "lengths": lengths,
}
