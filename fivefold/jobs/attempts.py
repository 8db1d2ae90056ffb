"""Parts that end their worker, by a crash or for want of memory: the row that does it is found, and the job goes on without it.

Before a part is embedded a small file says that it is tried. Where two tries ended without a word, the next ones embed row by
row and keep in the file which one. A row at which two of these end, too, is poison: it fails with that reason.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from fivefold.embedder import Embedder
from fivefold.jobs.folder import Folder
from fivefold.jobs.work import Embedded, Prepared, embed
from fivefold.vectors import VectorForm

QUICK_TRIES = 2
POISON = "embedding it ended the worker every time, by a crash or for want of memory; leave it out, or give workers more memory"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try of one part: its number, the row it is at if it goes row by row, where the one before ended, rows found out."""

    number: int = 0
    row: str | None = None
    suspect: str | None = None
    poison: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: bytes | None) -> Attempt:
        """Inverse of `to_json`; the zeroth where there is none."""
        if data is None:
            return cls()
        told = json.loads(data)
        return cls(**{**told, "poison": tuple(told["poison"])})

    def to_json(self) -> bytes:
        """One line."""
        return json.dumps(asdict(self)).encode("ascii")

    def next(self) -> Attempt:
        """The try after this one, which ended."""
        found = self.row is not None and self.row == self.suspect
        return Attempt(self.number + 1, None, self.row, (*self.poison, str(self.row)) if found else self.poison)


def attempt(prepared: Prepared, embedder: Embedder, form: VectorForm, folder: Folder) -> Embedded:
    """`embed`, as carefully as the tries before ask for."""
    name = folder.attempt_file(prepared.part.index)
    now = Attempt.from_json(folder.read(name)).next()
    folder.write(name, now.to_json(), durable=False)
    left = _without(prepared, now.poison)
    if now.number <= QUICK_TRIES:
        return embed(left, embedder, form)
    done = []
    for owner in dict.fromkeys(left.owners):
        folder.write(name, replace(now, row=owner).to_json(), durable=False)
        done.append(embed(_only(left, {owner}), embedder, form))
    return _joined(left, done, embed(_only(left, ()), embedder, form))


def _without(prepared: Prepared, poison: tuple[str, ...]) -> Prepared:
    """The part without some rows, which have failed."""
    if not poison:
        return prepared
    left = _only(prepared, set(prepared.owners) - set(poison))
    return replace(left, failed=prepared.failed + [(name, POISON) for name in poison], cut=prepared.cut)


def _only(prepared: Prepared, owners: Collection[str]) -> Prepared:
    """Some rows of a part, without what was said of it before."""
    kept = [(s, owner) for s, owner in zip(prepared.sequences, prepared.owners, strict=True) if owner in owners]
    spans = [owner in owners for s, owner in zip(prepared.sequences, prepared.owners, strict=True) for _ in s.spans]
    table = prepared.table.filter(pa.array(spans, pa.bool_()))
    return Prepared(prepared.part, table, [s for s, _ in kept], [owner for _, owner in kept], [])


def _joined(prepared: Prepared, done: list[Embedded], nothing: Embedded) -> Embedded:
    """One part of its rows."""
    every = [nothing, *done]
    return Embedded(
        prepared.part,
        pa.concat_tables([one.table for one in every]),
        np.concatenate([one.vectors for one in every]),
        sum(one.tokens for one in every),
        prepared.failed + [failure for one in every for failure in one.failed],
        prepared.cut,
    )
