"""Rows that the papers make of rows: tuples of classes, ids that tell tuples apart, and pairs that say something."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

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
    by_label: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_label[row.label].append(number)
    others = {label: [n for n, row in enumerate(rows) if row.label != label] for label in by_label}
    tuples = []
    for number, row in enumerate(rows):
        alike = [n for n in by_label[row.label] if n != number]
        if not alike or not others[row.label]:
            continue
        chosen = [number, int(rng.choice(alike)), *rng.choice(others[row.label], size=negatives).tolist()]
        query, passage, *apart = (marked(rows[n].text, number) for n in chosen)
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
