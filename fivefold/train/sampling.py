"""Draws of training text: which source, which language, which row, as a function of one random generator.

Shapes: none; everything here is text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.random import Generator

from fivefold.config import TASKS
from fivefold.train.corpora import LABELS, PAIRS, SEGMENTS, Corpora, Labelled, Pair, Segment, Source
from fivefold.train.teacher import BREAK, PASSAGE, QUERY

KINDS = {"aligned sentences": SEGMENTS, "query and passage": PAIRS, "labelled text": LABELS}
LANGUAGE_EXPONENT = 0.5
"""A language's share goes with the number of its rows to this power."""
PROMPTED = 0.15
"""Share of pairs read behind the retrieval prompts, so that the body knows them before the adapters do."""
RUNS = {"stsb": 0.08, "bible": 0.05, "lohelp": 0.03}
"""Shares of passages of neighbouring segments. Those of STS-B do not read on, but are everyday text in many languages."""
RUN_LENGTHS = 2, 17
"""Segments of a passage, drawn by their logarithm: from the first up to below the second."""
LONG = {"bible": 0.003, "lohelp": 0.003, "vital_desc": 0.02}
"""Shares of documents, many beyond what the teacher reads at a time: neighbouring segments, or passages that do not read on, of
which it reads each alone. So the student learns which words belong together, and chunks stay what they are in any document."""
LONG_RUNS, JOINED = (24, 97), (2, 25)
"""Segments and passages of such a document."""


@dataclass(frozen=True, slots=True)
class Example:
    """Texts for the student, for each the prefixed text whose teacher vector it should have, and its own with its prefix.

    The last is empty where the teacher never saw such a text, and its hidden states are no model.
    """

    texts: tuple[str, ...]
    targets: tuple[str, ...]
    same: tuple[str, ...]


def prefixed(prefix: str, texts: Iterable[str]) -> tuple[str, ...]:
    """As the teacher reads them."""
    return tuple(prefix + text for text in texts)


Draw = Callable[[Generator], Example]


class Spoken(Protocol):
    """A row that says its language."""

    @property
    def lang(self) -> str:
        """Its code."""
        ...


Row = TypeVar("Row", bound=Spoken)


class ByLanguage(Generic[Row]):
    """Rows that are drawn by language first, so that large languages do not crowd out small ones."""

    def __init__(self, rows: Iterable[Row]) -> None:
        grouped: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            grouped[row.lang].append(row)
        self.groups = [grouped[lang] for lang in sorted(grouped)]
        sizes = np.array([len(group) for group in self.groups], dtype=np.float64) ** LANGUAGE_EXPONENT
        self.shares = sizes / sizes.sum()

    def group(self, rng: Generator) -> list[Row]:
        """All rows of one drawn language."""
        return self.groups[rng.choice(len(self.groups), p=self.shares)]

    def draw(self, rng: Generator, count: int = 1) -> list[Row]:
        """`count` rows of one drawn language."""
        group = self.group(rng)
        return [group[i] for i in rng.integers(len(group), size=count)]


class Translations:
    """Segments of one source, with the odds of each language."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        counts: dict[str, int] = defaultdict(int)
        for segment in segments:
            for lang in segment.texts:
                counts[lang] += 1
        self.segments = segments
        self.odds = {lang: count ** (LANGUAGE_EXPONENT - 1) for lang, count in counts.items()}

    def languages(self, rng: Generator, segment: Segment, count: int) -> list[str]:
        """Up to `count` different languages of a segment."""
        langs = sorted(segment.texts)
        odds = np.array([self.odds[lang] for lang in langs])
        return [str(x) for x in rng.choice(langs, min(count, len(langs)), replace=False, p=odds / odds.sum())]

    def draw(self, rng: Generator, count: int) -> Example:
        """One sentence in up to `count` languages, all aimed at the English one's vector."""
        segment = self.segments[int(rng.integers(len(self.segments)))]
        langs = self.languages(rng, segment, count)
        texts = tuple(segment.texts[x] for x in langs)
        return Example(texts, (QUERY + segment.texts["en"],) * len(langs), prefixed(QUERY, texts))

    def draw_run(self, rng: Generator, count: int) -> Example:
        """Neighbouring segments read as one passage, in up to `count` languages."""
        run = self.run(rng, drawn_count(rng, RUN_LENGTHS))
        langs = self.languages(rng, run[0], count)
        texts = tuple(joined(run, lang) for lang in langs)
        return Example(texts, (PASSAGE + joined(run, "en"),) * len(langs), prefixed(PASSAGE, texts))

    def draw_long(self, rng: Generator) -> Example:
        """As many neighbouring segments as make a document, in one language, aimed at its own vector."""
        run = self.run(rng, drawn_count(rng, LONG_RUNS))
        (lang,) = self.languages(rng, run[0], 1)
        return document([joined(run, lang)])

    def run(self, rng: Generator, length: int) -> Sequence[Segment]:
        """`length` neighbouring segments."""
        start = int(rng.integers(max(1, len(self.segments) - length)))
        return self.segments[start : start + length]


def drawn_count(rng: Generator, bounds: tuple[int, int]) -> int:
    """A count from the first bound up to below the second, drawn by its logarithm."""
    return int(np.exp(rng.uniform(*np.log(bounds))))


def document(parts: Sequence[str]) -> Example:
    """One text of these parts, whose hidden states are the teacher's of each part alone, in windows."""
    read = prefixed(PASSAGE, [BREAK.join(parts)])
    return Example((" ".join(parts),), read, read)


def in_language(segment: Segment, lang: str) -> str:
    """A segment's text in a language, or in English where it has none."""
    return segment.texts.get(lang, segment.texts["en"])


def joined(run: Sequence[Segment], lang: str) -> str:
    """Segments read as one passage."""
    return " ".join(in_language(segment, lang) for segment in run)


def draw_pair(rng: Generator, rows: ByLanguage[Pair]) -> Example:
    """A query and its passage, each aimed at its own teacher vector; now and then behind the v3 prompts."""
    (row,) = rows.draw(rng)
    prompts = {task.name: task.prompt for task in TASKS} if rng.random() < PROMPTED else {}
    texts = (
        prompts.get("retrieval.query", "") + row.query,
        prompts.get("retrieval.passage", "") + row.passage,
    )
    targets = QUERY + row.query, PASSAGE + row.passage
    return Example(texts, targets, ("", "") if prompts else targets)


def draw_joined(rng: Generator, rows: ByLanguage[Pair]) -> Example:
    """Passages of one language as one document."""
    return document([row.passage for row in rows.draw(rng, drawn_count(rng, JOINED))])


def draw_texts(rng: Generator, rows: ByLanguage[Labelled]) -> Example:
    """Two short texts of one language."""
    texts = tuple(row.text for row in rows.draw(rng, 2))
    return Example(texts, prefixed(QUERY, texts), prefixed(QUERY, texts))


class Mixture:
    """All sources that are there, by their shares."""

    def __init__(self, corpora: Corpora, languages: int = 3) -> None:
        draws: list[tuple[Source, float, Draw]] = []
        for source in SEGMENTS:
            if corpora.segments.get(source.name):
                translations = Translations(corpora.segments[source.name])
                draws.append((source, source.share, partial(translations.draw, count=languages)))
                if source.name in RUNS:
                    draws.append((source, RUNS[source.name], partial(translations.draw_run, count=2)))
                if source.name in LONG:
                    draws.append((source, LONG[source.name], translations.draw_long))
        for source in PAIRS:
            if corpora.pairs.get(source.name):
                rows = ByLanguage(corpora.pairs[source.name])
                draws.append((source, source.share, partial(draw_pair, rows=rows)))
                if source.name in LONG:
                    draws.append((source, LONG[source.name], partial(draw_joined, rows=rows)))
        for source in LABELS:
            if corpora.labels.get(source.name):
                draws.append((source, source.share, partial(draw_texts, rows=ByLanguage(corpora.labels[source.name]))))
        self.draws = [draw for _, _, draw in draws]
        shares = np.array([share for _, share, _ in draws])
        self.shares = shares / shares.sum()
        self.sources = [source for source, _, _ in draws]

    def drawn(self) -> list[dict[str, Any]]:
        """What there is to say of each source: its name, the kind of its rows, its licence and its share of the draws."""
        found: dict[Source, float] = defaultdict(float)
        for source, share in zip(self.sources, self.shares, strict=True):
            found[source] += float(share)
        kinds = {source: kind for kind, sources in KINDS.items() for source in sources}
        return [
            {"source": source.name, "rows": kinds[source], "licence": source.licence, "share": share}
            for source, share in found.items()
        ]

    def draw(self, rng: Generator, count: int) -> list[Example]:
        """`count` examples."""
        return [self.draws[i](rng) for i in rng.choice(len(self.draws), size=count, p=self.shares)]
