"""Rows that the papers make of rows: tuples of classes, ids that tell tuples apart, and pairs that say something."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.random import Generator

from fivefold.train.corpora import Labelled, Pair

NEGATIVES = 7
OVERLAP = 0.8
MIN_WORDS = 4


def class_tuples(rows: Sequence[Labelled], rng: Generator, *, negatives: int = NEGATIVES) -> list[Pair]:
    """For each text another of its class and some of other classes; classes of one text are passed over.

    Texts of one class in different tuples are no negatives of each other. A number that all texts of a tuple share, and
    others do not, tells the model so (Lee et al. 2024, arXiv 2403.20327).
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[row.label].append(number)
    if len(groups) < 2:
        return []
    ordered = np.concatenate(list(groups.values()))
    starts = dict(zip(groups, accumulate(map(len, groups.values()), initial=0), strict=False))
    tuples = []
    for number, row in enumerate(rows):
        group = groups[row.label]
        if len(group) < 2:
            continue
        place = int(rng.integers(len(group) - 1))
        alike = group[place] if group[place] != number else group[-1]
        places = rng.integers(len(rows) - len(group), size=negatives)
        places += len(group) * (places >= starts[row.label])  # past the text's own class
        query, passage, *apart = (marked(rows[n].text, number) for n in (number, alike, *ordered[places].tolist()))
        tuples.append(Pair(row.lang, query, passage, row.label, tuple(apart)))
    return tuples


def marked(text: str, number: int) -> str:
    """A text with the number of its tuple."""
    return f"{text} [{number}]"


def says_something(pair: Pair) -> bool:
    """Whether the longer text is more than a copy of the shorter one.

    Not where at least 80 % of the words of the shorter text, of which there are at least four, are somewhere in the longer.
    """
    shorter, longer = sorted((pair.query.lower(), pair.passage.lower()), key=len)
    words = shorter.split()
    if len(words) < MIN_WORDS:
        return True
    return sum(word in longer for word in words) / len(words) < OVERLAP
