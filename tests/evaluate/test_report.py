"""evaluate/report.py: every score is in the table and in the file once, and means are those of its family."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.evaluate.board import Score
from fivefold.evaluate.report import columns, document, means, table

SETS = ("stsb-en-dev", "stsb-de-dev", "tatoeba-deu", "banking77", "xquad-en@512", "xquad-de->en", "long-xquad-en")
WAYS = ("own", "2 adapters, no prompts", "body")
SCORES = st.lists(
    st.builds(
        Score,
        set=st.sampled_from(SETS),
        kind=st.just("sts"),
        metric=st.sampled_from(["ndcg@10", "late chunks, document"]),
        way=st.sampled_from(WAYS),
        dims=st.sampled_from([8, 64, 384]),
        value=st.floats(-1, 1),
    ),
    unique_by=lambda score: (score.set, score.metric, score.way, score.dims),
    min_size=1,
    max_size=25,
)


@given(SCORES)
def test_a_mean_is_that_of_the_sets_of_one_family_metric_way_and_width(scores: list[Score]) -> None:
    families = {"stsb-en-dev": "stsb", "stsb-de-dev": "stsb", "xquad-en@512": "xquad", "xquad-de->en": "xquad"}
    families |= {"tatoeba-deu": "tatoeba", "banking77": "banking77", "long-xquad-en": "long"}
    expected = defaultdict(list)
    for score in scores:
        expected[f"{families[score.set]} {score.metric}", score.way, score.dims].append(score.value)
    found = {(group, *column): value for group, row in means(scores).items() for column, value in row.items()}
    assert found == pytest.approx({key: np.mean(values) for key, values in expected.items()}, abs=1e-12)


@given(SCORES)
def test_the_table_holds_every_score_and_mean_in_its_row_and_column(scores: list[Score]) -> None:
    head, line, *rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(scores).splitlines()]
    heads = head[1:]
    assert heads == [f"{way}, {dims}" for way, dims in dict.fromkeys((score.way, score.dims) for score in scores)]
    assert line == ["---", *["---:"] * len(heads)] and all(len(row) == len(head) for row in rows)
    cells = {(row[0], name): cell for row in rows for name, cell in zip(heads, row[1:], strict=True) if cell}
    expected = {(f"{score.set} {score.metric}", f"{score.way}, {score.dims}"): score.value for score in scores}
    for group, row in means(scores).items():
        expected |= {(f"**{group}**", f"{way}, {dims}"): value for (way, dims), value in row.items()}
    assert cells == {key: f"{value:.4f}" for key, value in expected.items()}
    assert len(rows) == len({name for name, _ in expected})
    bold = [row[0].startswith("**") for row in rows]
    assert bold == sorted(bold, reverse=True)  # means come first


@given(SCORES)
def test_the_file_holds_them_too_after_json(scores: list[Score]) -> None:
    found = json.loads(json.dumps(document(scores, model="toy"), allow_nan=False))
    assert [Score(**row) for row in found["scores"]] == [
        Score(s.set, s.kind, s.metric, s.way, s.dims, round(s.value, 5)) for s in scores
    ]
    for row in found["means"]:
        assert row["value"] == round(means(scores)[row["group"]][row["way"], row["dims"]], 5)
    assert len(found["means"]) == sum(map(len, means(scores).values())) and found["model"] == "toy"


def test_columns_stand_in_the_order_in_which_they_were_measured() -> None:
    scores = [Score("a", "sts", "m", way, dims, 0.5) for way in ("own", "body") for dims in (64, 8)]
    assert columns([*scores, *scores[::-1]]) == [("own", 64), ("own", 8), ("body", 64), ("body", 8)]
