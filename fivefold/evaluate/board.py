"""The board: every set by its metrics, in every way and at every number of dimensions asked for.

A text is encoded once for each adapter and prompt, at full width; cut vectors are prefixes of those.

Shapes: S texts, D hidden, d kept dims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.embedder import Embedder
from fivefold.evaluate import metrics
from fivefold.evaluate.sets import Bitext, Documents, EvalSet, Graded, Labelled, Retrieval, Texts
from fivefold.evaluate.ways import OWN_WAY, Side, Way, voiced
from fivefold.vectors import FloatArray, VectorForm

JOIN = " "
"""Between the chunks of a long document."""


@dataclass(frozen=True, slots=True)
class Score:
    """One number of the board."""

    set: str
    kind: str
    metric: str
    way: str
    dims: int
    value: float

    @property
    def group(self) -> str:
        """Sets whose mean is taken: those of one family, by one metric."""
        return f"{self.set.split('-')[0].split('@')[0]} {self.metric}"


class Reader:
    """Texts to full vectors, each list once."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._known: dict[tuple[Side, Any], FloatArray] = {}

    def vectors(self, texts: Texts, side: Side) -> FloatArray:
        """[S, D]."""
        key = (side, texts)
        if key not in self._known:
            self._known[key] = voiced(self.embedder, side).encode(texts, task=side.task)
        return self._known[key]

    def late(self, documents: tuple[Texts, ...], side: Side) -> FloatArray:
        """Every chunk of every document, pooled from the document read as a whole: [S, D]."""
        key = (side, documents)
        if key not in self._known:
            embedder = voiced(self.embedder, side)
            found = [embedder.encode_chunks(JOIN.join(c), chunks=c, task=side.task).vectors for c in documents]
            self._known[key] = np.concatenate(found)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class View:
    """What a metric sees: the sides' vectors, cut and of unit length."""

    reader: Reader
    sides: tuple[Side, Side]
    form: VectorForm

    def first(self, texts: Texts) -> FloatArray:
        """Of the first side: [S, d]."""
        return self.form.apply(self.reader.vectors(texts, self.sides[0]))

    def second(self, texts: Texts) -> FloatArray:
        """Of the second side: [S, d]."""
        return self.form.apply(self.reader.vectors(texts, self.sides[1]))

    def late(self, documents: tuple[Texts, ...]) -> FloatArray:
        """Chunks of the second side: [S, d]."""
        return self.form.apply(self.reader.late(documents, self.sides[1]))


Values = Mapping[str, float]


def _sts(data: Graded, see: View) -> Values:
    return {"spearman": metrics.spearman(see.first(data.first), see.second(data.second), data.scores)}


def _bitext(data: Bitext, see: View) -> Values:
    return {"accuracy": metrics.matched(see.first(data.left), see.second(data.right))}


def _retrieval(data: Retrieval, see: View) -> Values:
    return {"ndcg@10": metrics.ndcg10(see.first(data.queries), see.second(data.passages), np.array(data.gold))}


def _classification(data: Labelled, see: View) -> Values:
    parts = see.first(data.train), data.train_labels, see.first(data.test), data.test_labels
    return {"linear probe": metrics.linear_probe(*parts), "nearest neighbours": metrics.nearest_neighbours(*parts)}


def _clustering(data: Labelled, see: View) -> Values:
    vectors = np.concatenate([see.first(data.train), see.first(data.test)])
    return {"v-measure": metrics.v_measure(vectors, (*data.train_labels, *data.test_labels))}


def _long(data: Documents, see: View) -> Values:
    """Documents and their chunks found: by the document as one vector, by late chunks, by chunks that were read alone."""
    queries, document = see.first(data.queries), np.array([number for number, _ in data.gold])
    owners = np.repeat(np.arange(len(data.documents)), [len(chunks) for chunks in data.documents])
    starts = np.searchsorted(owners, np.arange(len(data.documents)))
    alone = see.second(tuple(text for chunks in data.documents for text in chunks))
    whole = see.second(tuple(JOIN.join(chunks) for chunks in data.documents))
    means = see.form.apply(np.add.reduceat(alone, starts))
    found = {
        "whole": metrics.ndcg10(queries, whole, document),
        "mean of chunks": metrics.ndcg10(queries, means, document),
    }
    chunk = [starts[number] + place for number, place in data.gold if place is not None]
    for name, chunks in (("late", see.late(data.documents)), ("plain", alone)):
        scores = queries @ chunks.T
        found[f"{name} chunks, document"] = metrics.ndcg10_of(metrics.best_of_each(scores, owners), document)
        if len(chunk) == len(data.gold):
            found[f"{name} chunks, chunk"] = metrics.ndcg10_of(scores, np.array(chunk))
    return found


MEASURES: tuple[tuple[str, type, Callable[[Any, View], Values]], ...] = (
    ("sts", Graded, _sts),
    ("bitext", Bitext, _bitext),
    ("retrieval", Retrieval, _retrieval),
    ("classification", Labelled, _classification),
    ("clustering", Labelled, _clustering),
    ("long", Documents, _long),
)
"""Kind, the sets it is measured on, and how."""
KINDS = tuple(kind for kind, _, _ in MEASURES)


def board(
    embedder: Embedder,
    sets: Iterable[EvalSet],
    *,
    ways: Sequence[Way] = (OWN_WAY,),
    dims: Sequence[int] = (),
    kinds: Sequence[str] = KINDS,
    log: Callable[[Score], None] = lambda score: None,
) -> list[Score]:
    """Every score of the sets; `dims` are numbers of dimensions, all of them where there is none."""
    reader, found = Reader(embedder), []
    forms = [VectorForm.checked(d, embedder.dimensions, True, "float32") for d in dims or (embedder.dimensions,)]
    for data in sets:
        for kind, held, measure in MEASURES:
            if kind not in kinds or not isinstance(data, held):
                continue
            for way in (way for way in ways if kind in way.kinds):
                for form in forms:
                    view = View(reader, way.sides(kind), form)
                    for metric, value in measure(data, view).items():
                        found.append(Score(data.name, kind, metric, way.name, form.dims, value))
                        log(found[-1])
    return found
