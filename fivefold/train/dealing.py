"""Rows of the corpora dealt out as sets for the library's samplers: by source and language, in fixed shares.

All queries of a set are of one language, and so are all passages: where other passages of a batch differ in language, a model
learns that the right one is in the language of the query, and then misses answers in another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from fivefold.train.corpora import LABELS, PAIRS, SEGMENTS, Corpora, Graded, Labelled, Pair, Segment
from fivefold.train.neighbours import Read, near
from fivefold.train.rows import Row
from fivefold.train.sampling import RUNS, ByLanguage, Spoken, Translations, in_language, joined

CLOZE_SOURCES = ("vital_title",)
RETRIEVAL_SHARES = {"asked": 0.6, "cloze": 0.15, "across": 0.25}
"""Pairs as they are; a sentence with its own passage; a sentence with the passage around it in another language."""
ASKED_SHARES = {"vital_desc": 0.5, "vital_title": 0.15, "wordnet": 0.1, "lohelp": 0.1, "help": 0.1, "recipes": 0.05}
"""Of the sources of pairs, for retrieval: what a person might ask an encyclopaedia goes first."""
PAIRS_SHARES = {"translations": 0.6, "pairs": 0.4}
MATCHING_SHARES = {"graded": 0.6, "translations": 0.4}
CLASSIFICATION_SHARES = {"classes": 0.4, "asked": 0.6}
"""Beside labelled texts pairs as for retrieval: labels alone forget what the adapter of queries knew of other classes."""
CLASS_SHARES: Mapping[str, Mapping[str, float]] = {
    "classification": {"vitaltopic": 0.4, "wordnet_topic": 0.4, "ha_intent": 0.2},
    "separation": {"vitaltopic": 0.4, "wordnet_topic": 0.5, "recipes": 0.05, "ha_intent": 0.05},
}
TOPICS: Mapping[str, str | None] = {
    "en:People": None,
    "es:Antropología, sicología y vida cotidiana": None,
    "es:Artes": "en:Arts",
    "es:Filosofía y religión": "en:Philosophy and religion",
    "es:Geografía": "en:Geography",
    "es:Historia": "en:History",
    "es:Matemáticas": "en:Mathematics",
    "es:Personas": None,
    "es:Tecnología": "en:Technology",
    "fr:Arts et culture": "en:Arts",
    "fr:Géographie": "en:Geography",
    "fr:Histoire": "en:History",
    "fr:Mathématiques": "en:Mathematics",
    "fr:Personnalités": None,
    "fr:Philosophie et religion": "en:Philosophy and religion",
    "fr:Santé et médecine": "en:Biology and health sciences",
    "fr:Science": "en:Physical sciences",
    "fr:Société et sciences sociales": "en:Society and social sciences",
    "fr:Technologie": "en:Technology",
    "fr:Vie quotidienne": "en:Everyday life",
}
"""The English topic of an article for that of another Wikipedia; None for what goes across topics, as people do."""
CROSSED = 0.5
"""Share of graded pairs whose two sentences are of two languages."""
POOL = 4
"""Rows that batches of neighbours are picked from, for each row that is wanted."""
BATCHES_OF_A_PAIR = 4
"""Of languages, in sets across languages: enough pairs come up, and a set still fills its batches."""

Sets = dict[str, Sequence[Row]]
AnyRow = TypeVar("AnyRow", bound=Spoken)


def dealt(rows: Sequence[AnyRow], count: int, batch: int, rng: Generator) -> dict[str, Sequence[AnyRow]]:
    """About `count` rows by language, small languages lifted; languages that cannot fill two batches are left out."""
    return {group[0].lang: some(group, wanted, rng) for group, wanted in _wanted(rows, count, batch)}


def dealt_near(
    rows: Sequence[Pair], count: int, batch: int, rng: Generator, read: Read, made: Callable[[Pair], Pair]
) -> dict[str, Sequence[Pair]]:
    """As `dealt`, in batches of rows that ask alike; `made` is what becomes of a row before it is read."""
    return {
        group[0].lang: near(
            [made(row) for row in some(group, min(POOL * wanted, len(group)), rng)], wanted, batch, read, rng
        )
        for group, wanted in _wanted(rows, count, batch)
    }


def some(rows: Sequence[AnyRow], count: int, rng: Generator) -> list[AnyRow]:
    """`count` different rows, or where there are fewer, some of them again."""
    return [rows[i] for i in rng.choice(len(rows), count, replace=count > len(rows))]


def _wanted(rows: Sequence[AnyRow], count: int, batch: int) -> Iterator[tuple[list[AnyRow], int]]:
    groups = ByLanguage(rows)
    for group, share in zip(groups.groups, groups.shares, strict=True):
        wanted = int(round(share * count / batch)) * batch
        if len(group) >= 2 * batch and wanted:
            yield group, wanted


def _named(source: str, sets: Mapping[str, Sequence[Row]]) -> Sets:
    return {f"{source}-{lang}": rows for lang, rows in sets.items()}


def draw_sentence(rng: Generator, text: str) -> str:
    """A sentence of at least 30 characters of a passage, or the passage itself."""
    sentences = [part for part in text.split(". ") if len(part) >= 30]
    return sentences[rng.integers(len(sentences))] if sentences else text


class Dealer:
    """Deals the sets of each stage and family: `rows` rows in all, for batches of `batch`.

    With `read`, pairs come in batches of neighbours by what it reads in their queries.
    """

    def __init__(self, corpora: Corpora, *, rows: int, batch: int, seed: int, read: Read | None = None) -> None:
        self.corpora, self.rows, self.batch, self.read = corpora, rows, batch, read
        self.rng = np.random.default_rng(seed)

    def retrieval(self) -> Sets:
        """Queries and the passages they should find."""
        kinds = {"asked": self._asked, "cloze": self._cloze, "across": self._across}
        return self._shared(RETRIEVAL_SHARES, kinds)

    def pairs(self) -> Sets:
        """For the body: translations, and pairs as they are."""
        return self._shared(PAIRS_SHARES, {"translations": self._translations, "pairs": self._pairs})

    def matching(self) -> Sets:
        """Graded pairs, and translations."""
        return self._shared(MATCHING_SHARES, {"graded": self._graded, "translations": self._translations})

    def classification(self) -> Sets:
        """Labelled texts, and pairs as they are."""
        classes: Callable[[int], Sets] = partial(self._classes, "classification")
        return self._shared(CLASSIFICATION_SHARES, {"classes": classes, "asked": self._asked})

    def separation(self) -> Sets:
        """Labelled texts."""
        return self._classes("separation", self.rows)

    def _classes(self, family: str, count: int) -> Sets:
        """Labelled texts, half of them one sentence of theirs; a source is one set, as classes go across languages."""
        sources = labelled_sources(self.corpora)
        shares = {name: share for name, share in CLASS_SHARES[family].items() if sources.get(name)}
        found: Sets = {}
        for name, share in shares.items():
            sets = dealt(sources[name], int(count * share / sum(shares.values())), self.batch, self.rng)
            rows = [self._cropped(row) for rows in sets.values() for row in rows]
            if rows:
                found[name] = [rows[i] for i in self.rng.permutation(len(rows))]
        return found

    def _shared(self, shares: Mapping[str, float], kinds: Mapping[str, Callable[[int], Sets]]) -> Sets:
        found: Sets = {}
        for kind, share in shares.items():
            found |= kinds[kind](int(self.rows * share))
        return found

    def _cropped(self, row: Labelled) -> Labelled:
        return replace(row, text=draw_sentence(self.rng, row.text)) if self.rng.random() < 0.5 else row

    def _pairs(self, count: int) -> Sets:
        return self._by_source(count, {source.name: source.share for source in PAIRS})

    def _asked(self, count: int) -> Sets:
        return self._by_source(count, ASKED_SHARES)

    def _by_source(self, count: int, shares: Mapping[str, float]) -> Sets:
        """Pairs of the sources that are there."""
        present = {name: share for name, share in shares.items() if self.corpora.pairs.get(name)}
        whole = sum(present.values())
        found: Sets = {}
        for name, share in present.items():
            found |= _named(name, self._dealt(self.corpora.pairs[name], int(count * share / whole)))
        return found

    def _cloze(self, count: int) -> Sets:
        leads = [row for name in CLOZE_SOURCES for row in self.corpora.pairs.get(name, [])]
        if not leads:
            return {}
        return _named("cloze", self._dealt(leads, count, self._sentence_and_rest))

    def _dealt(self, rows: Sequence[Pair], count: int, made: Callable[[Pair], Pair] = lambda row: row) -> Sets:
        if self.read is not None:
            cells = dealt_near(rows, count, self.batch, self.rng, self.read, made)
            return {lang: found for lang, found in cells.items() if found}
        sets = dealt(rows, count, self.batch, self.rng)
        return {lang: [made(row) for row in found] for lang, found in sets.items()}

    def _sentence_and_rest(self, row: Pair) -> Pair:
        sentence = draw_sentence(self.rng, row.passage)
        kept = row.passage.replace(sentence, " ") if self.rng.random() < 0.5 else row.passage
        return Pair(row.lang, sentence, kept if len(kept) > len(sentence) else row.passage)

    def _across(self, count: int) -> Sets:
        names = [name for name in RUNS if self.corpora.segments.get(name)]
        found: Sets = {}
        for name in names:
            texts = Translations(self.corpora.segments[name])
            for number in range(max(1, count // len(names) // (BATCHES_OF_A_PAIR * self.batch))):
                anywhere = texts.segments[int(self.rng.integers(len(texts.segments)))]
                lang, *others = texts.languages(self.rng, anywhere, 2)
                draw = partial(self._sentence_and_run, texts, lang, (others or [lang])[0])
                found[f"{name}-across-{number}"] = [draw() for _ in range(BATCHES_OF_A_PAIR * self.batch)]
        return found

    def _sentence_and_run(self, texts: Translations, lang: str, other: str) -> Pair:
        run = texts.run(self.rng, int(self.rng.integers(3, 7)))
        asked = run[int(self.rng.integers(len(run)))]
        return Pair(lang, in_language(asked, lang), joined(run, other))

    def _translations(self, count: int) -> Sets:
        sources = [source for source in SEGMENTS if self.corpora.segments.get(source.name)]
        whole = sum(source.share for source in sources)
        found: Sets = {}
        for source in sources:
            rows = english_pairs(self.corpora.segments[source.name])
            found |= _named(f"{source.name}-en", self._dealt(rows, int(count * source.share / whole)))
        return found

    def _graded(self, count: int) -> Sets:
        graded = self.corpora.graded
        langs = sorted(graded)
        return {"graded": [self._graded_pair(graded, langs) for _ in range(count)]} if langs else {}

    def _graded_pair(self, graded: Mapping[str, Sequence[Graded]], langs: Sequence[str]) -> Graded:
        row = int(self.rng.integers(len(graded[langs[0]])))
        first, second = (langs[i] for i in self.rng.integers(len(langs), size=2))
        if self.rng.random() >= CROSSED:
            second = first
        one, two = graded[first][row], graded[second][row]
        return Graded(first, one.first, two.second, one.score)


def english_pairs(segments: Sequence[Segment]) -> list[Pair]:
    """Each sentence's English beside each of its other languages."""
    return [
        Pair(lang, text, segment.texts["en"])
        for segment in segments
        for lang, text in segment.texts.items()
        if lang != "en"
    ]


def labelled_sources(corpora: Corpora) -> dict[str, list[Labelled]]:
    """All labelled texts by source: topics of articles, intents, and recipes by category."""
    found: dict[str, list[Labelled]] = defaultdict(list)
    for source in LABELS:
        for row in corpora.labels.get(source.name, []):
            label = TOPICS.get(row.label, row.label)
            if label is not None:
                found[source.name].append(replace(row, label=label))
    found["recipes"] += [Labelled(r.lang, r.query, r.label) for r in corpora.pairs.get("recipes", []) if r.label]
    return found
