"""evaluate/plots.py: what the pictures show, read from their axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fivefold.evaluate.board import Score
from fivefold.evaluate.plots import draw, lengths, matrix, matryoshka


def scored(name: str, values: dict[tuple[str, int], float], metric: str = "spearman") -> list[Score]:
    return [Score(name, "sts", metric, way, dims, value) for (way, dims), value in values.items()]


def lines(figure: Figure | None) -> dict[str, dict[float, float]]:
    assert figure is not None
    (axes,) = figure.axes
    return {
        str(line.get_label()): dict(zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True))
        for line in axes.lines
    }


def labels(ticks: Sequence[object]) -> list[str]:
    return [tick.get_text() for tick in ticks]  # type: ignore[attr-defined]


def test_the_curve_is_the_share_of_the_full_score_in_the_first_way() -> None:
    scores = [
        *scored("stsb-en", {("own", 8): 0.2, ("own", 32): 0.6, ("body", 8): 0.9, ("body", 32): 0.9}),
        *scored("stsb-de", {("own", 8): 0.4, ("own", 32): 0.6}),
        *scored("xquad-en", {("body", 32): -0.5, ("body", 8): -0.25}, metric="ndcg@10"),
    ]
    found = lines(matryoshka(scores))
    assert found.keys() == {"stsb spearman", "xquad ndcg@10"}
    assert found["stsb spearman"] == pytest.approx({8: 0.5, 32: 1.0})
    assert found["xquad ndcg@10"] == pytest.approx({8: 0.5, 32: 1.0})


def test_a_family_that_is_never_right_has_no_share_and_the_others_have(tmp_path: Path) -> None:
    """Pictures come last, after what may have been hours."""
    scores = [
        *scored("hard", {("own", 8): 0.1, ("own", 32): 0.0}),
        *scored("easy", {("own", 8): 0.5, ("own", 32): 1.0}),
        *scored("narrow", {("own", 8): 0.5}),
    ]
    assert lines(matryoshka(scores)) == {"easy spearman": {8: 0.5, 32: 1.0}}
    assert [path.name for path in draw(scores, tmp_path / "new" / "folder")] == ["matryoshka.png"]
    assert matryoshka(scored("one", {("own", 8): 0.5, ("body", 8): 0.5})) is None


def test_every_way_on_every_family_at_full_width() -> None:
    scores = [
        *scored("stsb-en", {("own", 8): 0.9, ("own", 32): 0.2, ("body", 32): 0.4}),
        *scored("xquad-en", {("own", 32): 0.25, ("quiet", 32): 0.75, ("body", 8): 0.1}, metric="ndcg@10"),
    ]
    figure = matrix(scores)
    assert figure is not None
    (axes,) = figure.axes
    assert labels(axes.get_xticklabels()) == ["own", "body", "quiet"]
    assert labels(axes.get_yticklabels()) == ["stsb spearman", "xquad ndcg@10"]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "0.200", (1, 0): "0.400", (2, 0): "nan", (0, 1): "0.250", (1, 1): "nan", (2, 1): "0.750"}
    colours = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    np.testing.assert_allclose(colours, [[-0.1, 0.1, np.nan], [-0.25, np.nan, 0.25]])
    assert matrix(scored("stsb-en", {("own", 8): 0.1, ("own", 32): 0.2})) is None


def test_quality_by_length_is_of_one_way_and_one_width() -> None:
    """A mean over adapters that are not meant for it, or over prefixes, would hide what length costs."""
    scores = [
        score
        for tokens, whole, mean in ((2048, 0.5, 0.6), (512, 0.7, 0.8), (1024, 0.6, 0.7))
        for language, less in (("en", 0.0), ("de", 0.2))
        for metric, value in (("whole", whole), ("mean of chunks", mean), ("late chunks, document", 0.1))
        for score in scored(
            f"xquad-{language}@{tokens}", {("own", 8): 0.1, ("own", 32): value - less, ("body", 32): 0.0}, metric
        )
    ]
    found = lines(lengths([*scored("long-xquad-en", {("own", 32): 0.3}, "whole"), *scores]))
    assert found == {
        "whole": pytest.approx({512: 0.6, 1024: 0.5, 2048: 0.4}),
        "mean of chunks": pytest.approx({512: 0.7, 1024: 0.6, 2048: 0.5}),
    }
    assert all(list(points) == [512, 1024, 2048] for points in found.values())
    assert lengths(scored("long-xquad-en", {("own", 32): 0.3}, "whole")) is None
    named = scored("long-me@home", {("own", 32): 0.3}, "whole")
    assert lengths(named) is None and lines(lengths([*named, *scores])) == found
