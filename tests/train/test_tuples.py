from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fivefold.train.corpora import Labelled, Pair
from fivefold.train.tuples import class_tuples, says_something


def test_tuples_hold_a_class_others_and_a_number_of_their_own() -> None:
    rows = [Labelled("en", f"{label}{i}", label) for label in "abc" for i in range(4)] + [Labelled("en", "d0", "d")]
    tuples = class_tuples(rows, np.random.default_rng(0))
    assert len(tuples) == 12  # d has nothing to be paired with
    ids = set()
    for made in tuples:
        texts = [made.query, made.passage, *made.negatives]
        (number,) = {text.split(" [")[1] for text in texts}
        ids.add(number)
        assert made.query[0] == made.passage[0] == made.label and made.query != made.passage
        assert len(made.negatives) == 7 and all(text[0] != made.label for text in made.negatives)
    assert len(ids) == len(tuples)


def test_every_text_is_drawn_about_as_often_as_another() -> None:
    rows = [Labelled("en", f"{label}{i}", label) for i in range(3) for label in "ab"]
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(300):
        for made in class_tuples(rows, np.random.default_rng(seed), negatives=3):
            first, other, *apart = (text.split(" ")[0] for text in (made.query, made.passage, *made.negatives))
            seen.update([(first, other), *((first, text) for text in apart)])
    assert len(seen) == 6 * 5
    for (first, other), times in seen.items():
        expected = 300 / 2 if first[0] == other[0] else 300 * 3 / 3
        assert times == pytest.approx(expected, rel=0.3)


def test_thousands_of_classes_take_no_time_each() -> None:
    rows = [Labelled("en", str(i), str(i // 2)) for i in range(20_000)]
    assert len(class_tuples(rows, np.random.default_rng(0))) == 20_000


def test_one_class_alone_teaches_nothing() -> None:
    assert class_tuples([Labelled("en", str(i), "a") for i in range(4)], np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("query", "passage", "kept"),
    [
        ("the red fox jumps", "yesterday The red fox jumps high", False),
        ("high jumps of foxes yesterday", "high jumps foxes yesterday", False),
        ("red fox here", "red fox here", True),  # too short to say so
        ("where does a fox live", "foxes dig their dens in forests", True),
        ("one two three four five", "one two three four six seven eight", False),
        ("one two three four five six", "one two three four and no more at all", True),
    ],
)
def test_a_copy_is_left_out(query: str, passage: str, kept: bool) -> None:
    assert says_something(Pair("en", query, passage)) is kept
    assert says_something(Pair("en", passage, query)) is kept
