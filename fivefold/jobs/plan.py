"""The corpus cut into parts: the unit that is embedded, written, counted and done again.

One pass over all rows, before anything is written: it names ids that come twice, settles the types of the columns, and gives
every part a fingerprint of its ids and contents. The cut depends on the rows alone, so a job that is started again has the same
parts, and a part whose fingerprint is another one has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import pyarrow as pa

from fivefold.errors import InputError, JobError
from fivefold.jobs import records
from fivefold.jobs.ids import Ids
from fivefold.jobs.records import SELF_DESCRIBING, Row
from fivefold.jobs.sources import Entry, Fields, File, check, entries
from fivefold.tokenizer import encodable

PART_CHARACTERS = 1 << 21
NAMED = 5
"""Ids that an error names at most."""


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows: the file the first of them is in, how many there are, and what they are."""

    index: int
    file: int
    rows: int
    characters: int
    fingerprint: str
    first: str
    last: str

    def __str__(self) -> str:
        """For messages."""
        return f"part {self.index} ({self.rows} rows, {self.first!r} to {self.last!r})"


@dataclass(frozen=True, slots=True)
class Plan:
    """All parts of a corpus, and the types of the columns that go along: `id`, `text`, and the others."""

    files: tuple[File, ...]
    fields: Fields
    parts: tuple[Part, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """Of all parts together."""
        return sum(part.rows for part in self.parts)

    def shards(self) -> list[Shard]:
        """Runs of parts that are read one after the other: each begins where a file does."""
        runs = [tuple(run) for _, run in groupby(self.parts, key=lambda part: part.file)]
        ends = [run[0].file for run in runs[1:]] + [len(self.files)]
        return [Shard(self.files[run[0].file : end], run) for run, end in zip(runs, ends, strict=True)]


@dataclass(frozen=True, slots=True)
class Shard:
    """Files and the parts they are cut into."""

    files: tuple[File, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of one part: those that can be used as a table, the others with the reason."""

    part: Part
    table: pa.Table
    tasks: list[str | None]
    refused: list[tuple[str, str]]


def make_plan(files: tuple[File, ...], fields: Fields, part_rows: int) -> Plan:
    """Read everything once.

    Raises:
        InputError: a column is missing or of a wrong type, an id comes twice, there is no row; with its name.
    """
    for file in files:
        check(file, fields)
    ids = Ids()
    parts: list[Part] = []
    schema = _merged([_declared(file, fields) for file in files])
    try:
        for first, rows in _cut(files, fields, part_rows):
            for entry in rows:
                ids.add(entry.id)
            parts.append(_part(len(parts), first, rows))
            if files[first].kind not in SELF_DESCRIBING:
                schema = _merged([schema, _schema(rows, fields)])
        if not parts:
            raise InputError(f"there is no row in {', '.join(file.path for file in files[:NAMED]) or 'the inputs'}")
        _check_kept(schema)
        _check_unique(ids, files, fields)
    finally:
        ids.close()
    return Plan(files, fields, tuple(parts), schema)


def read_shard(shard: Shard, fields: Fields, schema: pa.Schema, wanted: frozenset[int]) -> Iterator[Block]:
    """The blocks of a shard's wanted parts.

    Raises:
        JobError: the rows are not those of the plan any more.
    """
    last = max((number for number, part in enumerate(shard.parts, 1) if part.index in wanted), default=0)
    rows = (entry for file in shard.files for entry in entries(file, fields))
    for part in shard.parts[:last]:
        taken = list(islice(rows, part.rows))
        if part.index in wanted:
            if _fingerprint(taken) != part.fingerprint:
                raise JobError(f"the input changed while the job ran: {part} has other rows now; start the job again")
            yield _block(part, taken, fields, schema)


def _cut(files: tuple[File, ...], fields: Fields, part_rows: int) -> Iterator[tuple[int, list[Entry]]]:
    """Parts of at most `part_rows` rows and, but for the last row, `PART_CHARACTERS` characters, each with the number of its
    first file. A file of many rows has parts of its own; files of one text share them."""
    for _, group in groupby(enumerate(files), key=lambda at: -1 if at[1].kind == "text" else at[0]):
        yield from _filled(((number, entry) for number, file in group for entry in entries(file, fields)), part_rows)


def _filled(rows: Iterator[tuple[int, Entry]], part_rows: int) -> Iterator[tuple[int, list[Entry]]]:
    part: list[Entry] = []
    first = characters = 0
    for number, entry in rows:
        first = first if part else number
        part.append(entry)
        characters += _characters(entry)
        if len(part) == part_rows or characters >= PART_CHARACTERS:
            yield first, part
            part, characters = [], 0
    if part:
        yield first, part


def _characters(entry: Entry) -> int:
    return len(entry.found.text) if isinstance(entry.found, Row) else 0


def _part(index: int, file: int, rows: list[Entry]) -> Part:
    characters = sum(map(_characters, rows))
    return Part(index, file, len(rows), characters, _fingerprint(rows), rows[0].id, rows[-1].id)


def _fingerprint(rows: list[Entry]) -> str:
    """Of ids, contents and reasons, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for entry in rows:
        content = entry.found.record if isinstance(entry.found, Row) else str(entry.found)
        digest.update(repr((entry.id, content)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _columns(rows: list[Entry], fields: Fields) -> dict[str, list[object]]:
    """The columns that go along, by name, those of the first row first."""
    good = [(entry.id, entry.found) for entry in rows if isinstance(entry.found, Row)]
    others = dict.fromkeys(name for _, row in good for name in row.record if name not in _own(fields))
    return {
        "id": [name for name, _ in good],
        "text": [encodable(row.text) for _, row in good],
        **{name: [row.record.get(name) for _, row in good] for name in others},
    }


def _schema(rows: list[Entry], fields: Fields) -> pa.Schema:
    """The types that the values of a part have."""
    types = []
    for name, values in _columns(rows, fields).items():
        try:
            types.append((name, pa.string() if name in ("id", "text") else pa.array(values).type))
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise InputError(
                f"the column {name!r} cannot be kept beside the vectors ({error}), in the rows {rows[0].id!r} to "
                f"{rows[-1].id!r}; give it one type, or leave it out"
            ) from None
    return pa.schema(types)


def _check_kept(schema: pa.Schema) -> None:
    """Refuse objects that have no key in any row: Parquet has no such type."""
    for column in schema:
        if _hollow(column.type):
            raise InputError(
                f"the column {column.name!r} cannot be kept beside the vectors: its objects are empty in every row; "
                "leave it out"
            )


def _hollow(kind: pa.DataType) -> bool:
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return any(map(_hollow, inner)) or (pa.types.is_struct(kind) and not inner)


def _own(fields: Fields) -> set[str]:
    """Columns of the input that stand under names of ours."""
    return {"id", "text", fields.text}


def _declared(file: File, fields: Fields) -> pa.Schema:
    """The types that a file itself declares."""
    known = records.schema_of(file.path, file.kind) or []
    kept = [field for field in known if field.name not in _own(fields)]
    return pa.schema([("id", pa.string()), ("text", pa.string()), *kept])


def _merged(schemas: list[pa.Schema]) -> pa.Schema:
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"the columns have other types in other places ({error}); give them one type each") from None


def _block(part: Part, rows: list[Entry], fields: Fields, schema: pa.Schema) -> Block:
    columns = _columns(rows, fields)
    nothing = [None] * len(columns["id"])
    arrays = [pa.array(columns.get(field.name, nothing), field.type) for field in schema]
    tasks = [entry.found.task for entry in rows if isinstance(entry.found, Row)]
    refused = [(entry.id, str(entry.found)) for entry in rows if isinstance(entry.found, InputError)]
    return Block(part, pa.table(arrays, schema=schema), tasks, refused)


def _check_unique(ids: Ids, files: tuple[File, ...], fields: Fields) -> None:
    """Name ids that come twice; where hashes repeat the ids are read again to see."""
    repeated = ids.repeated()
    if not repeated:
        return
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for number, entry in enumerate(entry for file in files for entry in entries(file, fields)):
        if number in repeated:
            if entry.id in seen:
                twice[entry.id] = None
            seen.add(entry.id)
    if twice:
        named = ", ".join(map(repr, islice(twice, NAMED))) + (
            f" and {len(twice) - NAMED} more" if len(twice) > NAMED else ""
        )
        raise InputError(
            f"ids must be unique, and {named} come{'s' if len(twice) == 1 else ''} more than once; nothing was written"
        )


def samples(plan: Plan, count: int) -> list[Block]:
    """Blocks of so many parts from all over the corpus."""
    wanted = frozenset(range(0, len(plan.parts), max(len(plan.parts) // count, 1))[:count])
    return [block for shard in plan.shards() for block in read_shard(shard, plan.fields, plan.schema, wanted)]
