"""The batch job: what is there is checked, what is missing is done, and what is done is never done again.

One process does it with `Here`; `fivefold.jobs.cluster` does the same on Ray. Both yield a `Finished` for each part, which by
then is written. With a store, a part's file is only the way there: it is sent from here, marked, and deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

import pyarrow as pa
from tqdm import tqdm

from fivefold.embedder import Embedder
from fivefold.errors import InputError, JobError, StoreError
from fivefold.jobs import origin as origins
from fivefold.jobs.attempts import attempt
from fivefold.jobs.folder import CARD, ERRORS, JOB, Finished, Folder, stale
from fivefold.jobs.output import load, save
from fivefold.jobs.plan import Plan, make_plan, read_shard
from fivefold.jobs.sources import Fields, File
from fivefold.jobs.store import Origin, Store
from fivefold.jobs.stores.card import Card
from fivefold.jobs.work import Settings, prepare
from fivefold.vectors import VectorForm

FORMAT = 1
NAMED = 5
"""Parts that an error names at most."""


class Engine(Protocol):
    """Whoever has the model."""

    def origin(self, settings: Settings) -> Origin:
        """What the vectors will be made with."""
        ...

    def work(self, plan: Plan, wanted: frozenset[int], settings: Settings, folder: Folder) -> Iterator[Finished]:
        """Do the wanted parts, in any order; each is written when it is yielded."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """The model in this process."""

    embedder: Embedder

    def origin(self, settings: Settings) -> Origin:
        """Ask the model."""
        return origin_of(self.embedder, settings)

    def work(self, plan: Plan, wanted: frozenset[int], settings: Settings, folder: Folder) -> Iterator[Finished]:
        """One part after the other."""
        form = form_of(self.embedder, settings)
        for shard in plan.shards():
            for block in read_shard(shard, plan.fields, plan.schema, wanted):
                prepared = prepare(block, self.embedder.tokenizer, settings)
                yield save(folder, attempt(prepared, self.embedder, form, folder))


@dataclass(frozen=True, slots=True)
class Target:
    """A store, and its name in the manifest: what one store has got says nothing of another."""

    store: Store
    name: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a job did: rows of the whole corpus, and how many of them an earlier run had done."""

    rows: int
    reused: int
    vectors: int
    tokens: int
    cut: int
    failed: list[tuple[str, str]]


def run(
    files: Sequence[File],
    fields: Fields,
    settings: Settings,
    *,
    engine: Engine,
    folder: Folder,
    target: Target | None = None,
    update: bool = False,
    show_progress: bool = False,
) -> Summary:
    """Do what is not done yet.

    Args:
        files: the corpus, as `sources.files` gives it.
        folder: where parts and manifest are.
        target: the store where vectors go instead of staying in the folder.
        update: do those parts again whose rows changed since.
        show_progress: a progress bar on stderr: rows, tokens a second, time left.

    Raises:
        InputError: the corpus cannot be used, or the folder belongs to another job; nothing was written.
        JobError, StoreError: it cannot go on; what is finished stays, and the same call goes on from there.
    """
    if target is not None and fields.task is not None:
        raise InputError(
            "a collection has vectors of one task: write rows of several to Parquet, or index task by task"
        )
    with folder.locked():
        told = engine.origin(settings)
        asked = _settings(fields, settings, target)
        before = _told(folder)
        _check_job(folder, before, told, asked)
        plan = make_plan(tuple(files), fields, settings.part_rows)
        columns = output_columns(plan)
        _check_columns(folder, before, columns)
        finished = _current(folder, plan, update=update, stored=target is not None)
        if target is not None:
            origins.prepare(target.store, told, columns)
        _tell_job(folder, told, asked, columns)
        wanted = frozenset(part.index for part in plan.parts) - set(finished)
        reused = sum(line.rows for line in finished.values())
        with tqdm(total=plan.rows, initial=reused, unit=" rows", disable=not show_progress) as bar:
            for line in finished.values():
                _deliver(line, folder, target)
            done = 0
            for line in engine.work(plan, wanted, settings, folder) if wanted else ():
                finished[line.part] = _deliver(line, folder, target)
                done += line.tokens
                bar.set_postfix_str(f"{done / max(bar.format_dict['elapsed'], 0.001):,.0f} tokens/s", refresh=False)
                bar.update(line.rows)
        _check_all(plan, finished)
        failed = _write_errors(folder, finished)
    lines = finished.values()
    vectors, tokens, cut = (sum(getattr(line, name) for line in lines) for name in ("vectors", "tokens", "cut"))
    return Summary(plan.rows, reused, vectors, tokens, cut, failed)


def origin_of(embedder: Embedder, settings: Settings) -> Origin:
    """What a model makes vectors with under these settings."""
    return origins.origin_of(
        embedder,
        task=settings.task,
        truncate_dim=settings.truncate_dim,
        precision=settings.precision,
        normalize=settings.normalize,
    )


def form_of(embedder: Embedder, settings: Settings) -> VectorForm:
    """The form that vectors leave in."""
    return VectorForm.checked(settings.truncate_dim, embedder.dimensions, settings.normalize, settings.precision)


def output_columns(plan: Plan) -> pa.Schema:
    """What goes along with ids and vectors."""
    chunks = [pa.field("document", pa.string()), pa.field("start", pa.int64()), pa.field("stop", pa.int64())]
    text, *others = [field for field in plan.schema if field.name != "id"]
    return pa.schema([text, *(chunks if plan.fields.chunks else ()), *others])


@dataclass(frozen=True, slots=True)
class _Told:
    """What job.json says of the job that an output belongs to."""

    origin: Origin
    settings: dict[str, object]
    columns: str


def _told(folder: Folder) -> _Told | None:
    data = folder.read(JOB)
    if data is None:
        return None
    try:
        told = json.loads(data)
        return _Told(Origin.from_dict(told["origin"]), dict(told["settings"]), str(told["columns"]))
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{folder.name}/{JOB} cannot be read; name another output") from None


def _settings(fields: Fields, settings: Settings, target: Target | None) -> dict[str, object]:
    """What decides the output beside origin and columns, by the names that options have."""
    kept = {name: value for name, value in asdict(settings).items() if name not in ("task", "truncate_dim")}
    names = {"field": fields.text, "task_field": fields.task, "id_field": fields.id}
    return {**kept, **names, "store": target and target.name, "format": FORMAT}


def _check_job(folder: Folder, before: _Told | None, told: Origin, asked: dict[str, object]) -> None:
    """Refuse a folder that another job, or somebody else, has written to."""
    if before is None:
        if not folder.is_empty():
            raise InputError(f"{folder.name} exists and is not the output of a job; name a new folder")
        return
    different = [
        f"{name}: {before.settings.get(name)!r} in the output, {asked[name]!r} asked for"
        for name in asked
        if before.settings.get(name) != asked[name]
    ]
    different += origins.differences(before.origin, told)
    if different:
        raise InputError(
            f"{folder.name} holds another job's output ({'; '.join(different)}); start it with the same settings, or name "
            "another output"
        )


def _check_columns(folder: Folder, before: _Told | None, columns: pa.Schema) -> None:
    if before is not None and before.columns != str(columns):
        raise InputError(
            f"the input has other columns than the output in {folder.name}. There:\n{before.columns}\nNow:\n{columns}\n"
            "Name another output"
        )


def _tell_job(folder: Folder, told: Origin, asked: dict[str, object], columns: pa.Schema) -> None:
    """Say in the folder what the job is, and, where vectors of one task stay there, what a search has to know of them."""
    if folder.read(JOB) is None:
        job = {"origin": told.to_dict(), "settings": asked, "columns": str(columns)}
        folder.write(JOB, json.dumps(job, indent=1).encode("ascii"))
    if asked["task_field"] is None and asked["store"] is None and folder.read(CARD) is None:
        folder.write(CARD, Card(told, columns).to_json().encode("ascii"))


def _current(folder: Folder, plan: Plan, *, update: bool, stored: bool) -> dict[int, Finished]:
    """Finished parts whose rows are still those of the input."""
    folder.tidy()
    finished = folder.finished()
    changed = stale(finished, plan.parts)
    if changed and (stored or not update):
        by_index = {part.index: str(part) for part in plan.parts}
        named = ", ".join(by_index.get(index, f"part {index} (no rows left)") for index in changed[:NAMED])
        hint = "pass --update to embed them again"
        if stored:
            hint = "a store would keep rows that went, so name a new collection and output"
        raise InputError(f"the input changed since {len(changed)} of the finished parts were embedded: {named}; {hint}")
    for index in changed:
        folder.forget(index)
        del finished[index]
    return finished


def _deliver(line: Finished, folder: Folder, target: Target | None) -> Finished:
    """Send a part to the store, unless it is there; then its file goes."""
    if target is None or line.stored:
        return line
    rows = load(folder, line.part)
    try:
        if rows.ids:
            target.store.upsert(rows)
    except StoreError as error:
        raise StoreError(
            f"{error}. Nothing is lost: parts that are embedded wait in {folder.name}, and the same command sends them again"
        ) from error
    done = replace(line, stored=True)
    folder.finish(done)
    folder.remove(folder.part_file(line.part))
    return done


def _check_all(plan: Plan, finished: dict[int, Finished]) -> None:
    """No part may be missing, whatever the engine says."""
    missing = [part for part in plan.parts if part.index not in finished]
    if missing:
        named = ", ".join(map(str, missing[:NAMED]))
        raise JobError(f"{len(missing)} of {len(plan.parts)} parts were not done: {named}; start the job again")


def _write_errors(folder: Folder, finished: dict[int, Finished]) -> list[tuple[str, str]]:
    """All failures, in the order of the input, as lines of JSON; no file where there are none."""
    failed = [failure for index in sorted(finished) for failure in finished[index].failed]
    lines = [json.dumps({"id": name, "reason": reason}, ensure_ascii=False) + "\n" for name, reason in failed]
    if lines:
        folder.write(ERRORS, "".join(lines).encode("utf-8", "surrogatepass"))
    else:
        folder.remove(ERRORS)
    return failed
