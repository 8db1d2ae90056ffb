"""Which rows meet in a batch: the library's samplers, chosen by what a set holds.

Every batch is from one set, and sets are split by source and language before they come here, so a batch has one language, as
in the papers. Texts compared with each other must differ; texts of classes must come several of a class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from datasets import Dataset, DatasetInfo
from datasets.arrow_writer import ArrowWriter
from sentence_transformers.base.sampler import DefaultBatchSampler, GroupByLabelBatchSampler, NoDuplicatesBatchSampler
from torch.utils.data import RandomSampler, SequentialSampler

from fivefold.train.corpora import Graded, Labelled, Pair
from fivefold.train.neighbours import Cells, Drawn

TARGET, SAME, SCORE, LABEL = "target", "same", "score", "label"
IN_ORDER = "rows in whole batches already"
"""Describes such a set, which the trainer hands to `sampler` without a name."""
FOR_TEACHER = "target_"
"""Before a column's name: what a teacher reads in its place."""


def sampler(
    dataset: Dataset,
    *,
    batch_size: int,
    drop_last: bool,
    valid_label_columns: list[str] | None = None,
    generator: torch.Generator | None = None,
    seed: int = 0,
) -> DefaultBatchSampler:
    """As the trainer calls it: batches of one set.

    Rows with a target come as they stand, since translations that follow one another should meet, and so do cells; pairs with a
    score in any order; labelled texts several of a label; all others so that no text is twice in a batch.
    """
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "valid_label_columns": valid_label_columns,
        "generator": generator,
        "seed": seed,
    }
    columns = set(dataset.column_names)
    if TARGET in columns or dataset.info.description == IN_ORDER:
        return DefaultBatchSampler(SequentialSampler(dataset), **options)
    if SCORE in columns:
        return DefaultBatchSampler(RandomSampler(dataset, generator=generator), **options)
    if LABEL in columns:
        return GroupByLabelBatchSampler(dataset, **options)
    return NoDuplicatesBatchSampler(dataset, **options)


def pair_set(rows: Sequence[Pair]) -> Dataset:
    """Columns query, passage, negative_1, ...; all rows have as many negatives as the first."""
    columns = {"query": [row.query for row in rows], "passage": [row.passage for row in rows]}
    for number in range(len(rows[0].negatives)):
        columns[f"negative_{number + 1}"] = [row.negatives[number] for row in rows]
    return Dataset.from_dict(columns, info=DatasetInfo(description=IN_ORDER) if isinstance(rows, Cells) else None)


def graded_set(rows: Sequence[Graded]) -> Dataset:
    """Columns first, second, score."""
    columns = {"first": [r.first for r in rows], "second": [r.second for r in rows], SCORE: [r.score for r in rows]}
    return Dataset.from_dict(columns)


def labelled_set(rows: Sequence[Labelled]) -> Dataset:
    """Columns text, label; labels are numbers, in the order of their names."""
    numbers = {label: number for number, label in enumerate(sorted({row.label for row in rows}))}
    return Dataset.from_dict({"text": [row.text for row in rows], LABEL: [numbers[row.label] for row in rows]})


def target_set(texts: Sequence[str], targets: Sequence[str]) -> Dataset:
    """Columns text and target: what the student reads, and what the teacher reads in its place."""
    return Dataset.from_dict({"text": list(texts), TARGET: list(targets)})


def held_set(
    data: Dataset, prefixes: Mapping[str, str], prefix: str, instead: Mapping[str, str] = MappingProxyType({})
) -> Dataset:
    """With a column more for each column of texts, for a teacher, which reads `prefixes` by column before them, or `prefix`;
    `instead` names the column that it reads in place of another."""
    texts = [name for name in data.column_names if name not in (SCORE, LABEL)]
    for name in texts:
        before = prefixes.get(name, prefix)
        data = data.add_column(FOR_TEACHER + name, [before + text for text in data[instead.get(name, name)]])
    return data


def mapped_set(rows: Iterable[Drawn], file: Path) -> Dataset:
    """Columns text, target and same, as (text, target, text as the teacher reads the same): written to `file` row by row,
    and mapped, so that the set may be larger than memory."""
    with ArrowWriter(path=str(file)) as writer:
        for text, target, same in rows:
            writer.write({"text": text, TARGET: target, SAME: same})
        writer.finalize()
    return Dataset.from_file(str(file))
