"""What the vectors of a collection were made with: told by a model, compared, and refused where it does not fit.

Vectors of different models, tasks or widths can be compared without any error, and the ranking is then noise. So every
collection carries its `Origin`, and every writer and every query is held against it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from fivefold.embedder import Embedder
from fivefold.errors import InputError
from fivefold.jobs.store import Origin, Store

PROBE_TEXT = "One sentence, asked of every model."
PROBE_DECIMALS = 4
SAME_MODEL_COSINE = 0.998
"""A model that says something this different about the probe text is another model; dtypes stay far above."""
QUERY_TASKS = {"retrieval.passage": "retrieval.query"}
"""Adapter of the queries by adapter of the passages; any other task is symmetric."""


FITTING = "fitting"
"""In the place of a task: whichever goes with the passages."""


def origin_of(
    embedder: Embedder,
    *,
    task: str | None,
    truncate_dim: int | None = None,
    precision: str = "float32",
    normalize: bool = True,
) -> Origin:
    """What vectors have in common that `embedder.encode` makes with these arguments."""
    probe = np.asarray(embedder.encode(PROBE_TEXT, task=task, truncate_dim=truncate_dim), dtype=np.float64)
    named = Path(embedder.model_name)
    return Origin(
        model=str(named.resolve()) if named.is_dir() else embedder.model_name,
        task=task,
        dimensions=len(probe),
        precision=precision,
        normalized=normalize,
        probe=tuple(probe.round(PROBE_DECIMALS).tolist()),
    )


def differences(stored: Origin, given: Origin) -> list[str]:
    """What differs, each with both values. The probe decides whether it is the same model, whatever its name."""
    fields = ("task", "dimensions", "precision", "normalized")
    found = [
        f"{name}: {getattr(stored, name)!r} in the index, {getattr(given, name)!r} asked for"
        for name in fields
        if getattr(stored, name) != getattr(given, name)
    ]
    if not found and not _same_model(stored, given):
        found.append(
            f"model: {stored.model!r} has other weights now than when the index was made"
            if stored.model == given.model
            else f"model: {stored.model!r} in the index, {given.model!r} asked for"
        )
    return found


def prepare(store: Store, origin: Origin, schema: pa.Schema) -> None:
    """Make the collection, or see that what is there was made with the same.

    Raises:
        InputError: it was made with something else; the message says what differs.
    """
    stored = store.origin()
    if stored is None:
        store.create(origin, schema)
    elif different := differences(stored, origin):
        raise InputError(
            f"these vectors do not fit the collection ({'; '.join(different)}); write with its settings, or name "
            "another collection"
        )


def query_task(stored: Origin, asked: str | None = FITTING) -> str | None:
    """The adapter for queries over vectors of this origin; who asks for a task may name either side of the pair.

    Raises:
        InputError: the asked task does not fit the passages'.
    """
    fitting = QUERY_TASKS.get(stored.task or "", stored.task)
    if asked not in (FITTING, fitting, stored.task):
        raise InputError(
            f"a query with task {asked!r} does not fit: the passages were embedded with {stored.task!r}, and their "
            f"neighbours are found with {fitting!r}; two other tasks are two other spaces. Ask with {fitting!r}, or "
            "embed the passages again with the task you want"
        )
    return fitting


def _same_model(stored: Origin, given: Origin) -> bool:
    lengths = np.linalg.norm(stored.probe) * np.linalg.norm(given.probe)
    return bool(np.dot(stored.probe, given.probe) >= SAME_MODEL_COSINE * lengths)
