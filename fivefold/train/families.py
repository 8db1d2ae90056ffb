"""The families of adapters: which tasks train together, on which rows, by which loss, how fast (section 4 of the paper on v3).

| family | pairs, tuples | scored | labelled |
|---|---|---|---|
| retrieval | contrast, through both adapters | | |
| text-matching | contrast | CoSENT | |
| classification | contrast | | tuples of classes, in contrast |
| separation | contrast | CoSENT | CoSENT over labels |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer
from torch import Tensor, nn

from fivefold.errors import InputError
from fivefold.model import Encoder
from fivefold.train.batches import SCORE, graded_set, held_set, labelled_set, pair_set
from fivefold.train.corpora import Graded, Labelled, Pair
from fivefold.train.loop import Run, Schedule, adapters, assemble, fit, learn
from fivefold.train.losses import Held, contrast, ordered, separated
from fivefold.train.rows import Row
from fivefold.train.teacher import PASSAGE as AS_PASSAGE
from fivefold.train.teacher import QUERY as AS_QUERY
from fivefold.train.teacher import Teacher
from fivefold.train.tuples import class_tuples

MakeLoss = Callable[[nn.Module, Sequence[int], int | None], nn.Module]
"""From a model, Matryoshka dimensions and the rows that go through it at one time, to a loss."""
Material = tuple[Dataset, MakeLoss]
Prepare = Callable[[Sequence[Any], float, int], Material]
"""From rows of one kind, a temperature and a seed."""


@dataclass(frozen=True, slots=True)
class Family:
    """Adapters that train together; `instead` names columns of pairs that a teacher reads in place of others."""

    tasks: tuple[str, ...]
    temperature: float
    max_length: int
    kinds: Mapping[type, Prepare]
    router: Mapping[str, str] | None = None
    instead: Mapping[str, str] | None = None


def _pairs(rows: Sequence[Pair], temperature: float, seed: int) -> Material:
    return pair_set(rows), lambda model, dims, piece: contrast(model, temperature, dims, piece=piece)


def _graded(rows: Sequence[Graded], temperature: float, seed: int) -> Material:
    return graded_set(rows), lambda model, dims, piece: ordered(model, temperature, dims)


def _labelled(rows: Sequence[Labelled], temperature: float, seed: int) -> Material:
    return labelled_set(rows), lambda model, dims, piece: separated(model, temperature, dims)


def _tuples(rows: Sequence[Labelled], temperature: float, seed: int) -> Material:
    tuples = class_tuples(rows, np.random.default_rng(seed))
    if not tuples:
        raise InputError("labelled rows need two classes, and a class of two texts, to be told apart")
    return _pairs(tuples, temperature, seed)


QUERY, PASSAGE = "retrieval.query", "retrieval.passage"

FAMILIES: Mapping[str, Family] = {
    "retrieval": Family(
        (QUERY, PASSAGE),
        0.05,
        512,
        {Pair: _pairs},
        router={"query": QUERY, "passage": PASSAGE},
    ),
    "text-matching": Family(
        ("text-matching",), 0.05, 192, {Pair: _pairs, Graded: _graded}, instead={"query": "passage"}
    ),
    "classification": Family(("classification",), 0.02, 192, {Pair: _pairs, Labelled: _tuples}),
    "separation": Family(
        ("separation",),
        0.02,
        192,
        {Pair: _pairs, Graded: _graded, Labelled: _labelled},
    ),
}
"""Temperatures and lengths are the paper's, for cosines as wide apart as v3's. Its steps and rates are for a million rows and a
GPU, so those are the caller's."""


def prepared(
    name: str, sets: Mapping[str, Sequence[Row]], seed: int, temperatures: Mapping[type, float] = MappingProxyType({})
) -> dict[str, Material]:
    """Each set's data and loss, by what the family learns of such rows; `temperatures` by kind of row, where not its own.

    Raises:
        InputError: rows that the family cannot learn from, or no such family.
    """
    if name not in FAMILIES:
        raise InputError(f"unknown family of adapters {name!r}; there are: {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    found = {}
    for where, rows in sets.items():
        prepare = family.kinds.get(type(rows[0]))
        if prepare is None or len({type(row) for row in rows}) > 1:
            fits = ", ".join(KIND_NAMES[kind] for kind in family.kinds)
            raise InputError(f"{where}: {name} learns from {fits}, one kind a file, not {KIND_NAMES[type(rows[0])]}")
        found[where] = prepare(rows, temperatures.get(type(rows[0]), family.temperature), seed)
    return found


def _routed(router: Mapping[str, str], data: Mapping[str, Dataset]) -> dict[str, str]:
    """With the negatives, as many as there are, where the passages go."""
    columns = {name for rows in data.values() for name in rows.column_names}
    negatives = [name for name in columns if name.startswith("negative_")]
    return {**router, **(dict.fromkeys(negatives, router["passage"]) if router else {})}


KIND_NAMES: Mapping[type, str] = {Pair: "pairs", Graded: "scored pairs", Labelled: "labelled texts"}


def fit_family(
    encoder: Encoder,
    tokenizer: Tokenizer,
    family: str,
    materials: Mapping[str, Material],
    *,
    schedule: Schedule,
    run: Run,
    teacher: Teacher | None = None,
    held: float = 0.0,
) -> dict[str, Tensor]:
    """Train one family's adapters of a loaded encoder on prepared rows -> all of its tensors.

    With a teacher, its similarities of the same texts are learned too, with the weight `held`; scored pairs go without. Of
    translations it reads the English on both sides, which it knows best.
    """
    trained = assemble(encoder, tokenizer, task=FAMILIES[family].tasks[0])
    learn(trained, adapters)
    dims = encoder.config.matryoshka_dimensions
    data = {name: rows for name, (rows, _) in materials.items()}
    router = _routed(FAMILIES[family].router or {}, data)
    piece = run.piece if teacher is None else None  # what is held needs the vectors of a whole batch
    losses = {name: loss(trained, dims, piece) for name, (_, loss) in materials.items()}
    if teacher is not None:
        prefixes = {name: AS_PASSAGE for name, task in router.items() if task == PASSAGE}
        for name in [name for name, rows in data.items() if SCORE not in rows.column_names]:
            data[name] = held_set(data[name], prefixes, AS_QUERY, FAMILIES[family].instead or {})
            losses[name] = Held(trained, losses[name], teacher, dims, held)
    return fit(trained, data, losses, schedule=schedule, run=run, router=router, teacher=teacher)
