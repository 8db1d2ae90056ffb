"""The same job on Ray: readers, tokenisers and models as three stages of Ray Data, on this machine or a cluster.

    files -> read: a row for each part -> tokenise: a pool on CPUs -> embed and write: a pool of models

Ray moves the parts, holds back stages that run ahead, starts workers while there is work for them and replaces those that die.
Here is only what goes in and out of its rows. A worker has one part at a time and marks it finished itself, so when everything
is killed at most one part a worker has to be done again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from fivefold.errors import InputError, JobError, MissingExtraError
from fivefold.fleet import Fleet
from fivefold.jobs.attempts import attempt
from fivefold.jobs.folder import Finished, Folder
from fivefold.jobs.job import form_of, origin_of
from fivefold.jobs.output import save
from fivefold.jobs.plan import Block, Part, Plan, Shard, read_shard
from fivefold.jobs.sources import Fields
from fivefold.jobs.store import Origin
from fivefold.jobs.work import Model, Prepared, Settings, prepare
from fivefold.sequence import Sequence

try:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask
except ModuleNotFoundError as error:
    raise MissingExtraError(f"workers need {error.name}: pip install 'fivefold[ray]'") from None

Message = dict[str, Any]
"""A row between stages: `table` and `sequences` as Arrow's IPC, and in `failure` what ends the job, if anything."""
READ_CPUS, TOKENISE_CPUS = 0.2, 0.3
"""What the stages before the model ask of Ray: little, so that the models get the cores."""
PARTS_WAITING = 2
"""Parts at a worker: the one it works on, and the next."""
OBJECT_STORE_BYTES = 256 << 20
"""Of a Ray that is started here; parts on their way are small."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The models on Ray."""

    model: Model
    workers: Fleet

    def origin(self, settings: Settings) -> Origin:
        """Ask a model where the models will be."""
        ask = ray.remote(num_cpus=self.workers.cpus, num_gpus=self.workers.gpus, max_calls=1)(_origin)
        found: Origin = ray.get(ask.remote(self.model, settings))
        return found

    def work(self, plan: Plan, wanted: frozenset[int], settings: Settings, folder: Folder) -> Iterator[Finished]:
        """All stages at once."""
        with DataContext.current(_one_block_a_part()):
            finished = self._stages(plan, wanted, settings, folder)
        for row in finished.iter_rows():
            if row["failure"]:
                raise JobError(row["failure"])
            yield Finished.from_json(row["finished"], "a worker's answer")

    def _stages(self, plan: Plan, wanted: frozenset[int], settings: Settings, folder: Folder) -> ray.data.Dataset:
        models = ActorPoolStrategy(
            min_size=self.workers.least,
            max_size=self.workers.most,
            max_tasks_in_flight_per_actor=PARTS_WAITING,
        )
        tokenisers = ActorPoolStrategy(min_size=1, max_size=max(1, self.workers.most // 2))
        parts = ray.data.read_datasource(_Parts(plan, wanted), num_cpus=READ_CPUS)
        tokenised = parts.map(
            _Tokenise, fn_constructor_args=(self.model, settings), compute=tokenisers, num_cpus=TOKENISE_CPUS
        )
        return tokenised.map(
            _Embed,
            fn_constructor_args=(self.model, settings, folder.name),
            compute=models,
            num_cpus=self.workers.cpus,
            num_gpus=self.workers.gpus,
        )


@contextmanager
def started(workers: Fleet) -> Iterator[None]:
    """Ray, as the workers need it; one that runs already is used and left running."""
    if ray.is_initialized():
        yield
        return
    try:
        workers.connect(object_store_bytes=OBJECT_STORE_BYTES)
    except ConnectionError as error:
        raise JobError(f"{error}; start the job again, or without --workers") from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


def _one_block_a_part() -> DataContext:
    """Else Ray Data puts small blocks together, and few workers get any."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    return context


class _Parts(Datasource):
    """The wanted parts, a task for each shard."""

    def __init__(self, plan: Plan, wanted: frozenset[int]) -> None:
        super().__init__()
        self._plan, self._wanted = plan, wanted

    def get_name(self) -> str:
        return "Parts"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        nothing_known = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        tasks = []
        for shard in self._plan.shards():
            wanted = self._wanted & {part.index for part in shard.parts}
            if wanted:
                read = partial(_read, shard, self._plan.fields, self._plan.schema, wanted)
                tasks.append(ReadTask(read, nothing_known))
        return tasks


class _Tokenise:
    """A tokeniser in a process of its own."""

    def __init__(self, model: Model, settings: Settings) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a core for each worker, not all for each
        self._tokenizer, self._settings = model.tokenizer(), settings

    def __call__(self, row: Message) -> Message:
        return _or_failure(row, lambda: _prepared_message(prepare(_block(row), self._tokenizer, self._settings)))


class _Embed:
    """A model in a process of its own, which writes what it has done."""

    def __init__(self, model: Model, settings: Settings, folder: str) -> None:
        self._embedder, self._folder = model.embedder(), Folder(folder)
        self._form = form_of(self._embedder, settings)

    def __call__(self, row: Message) -> Message:
        def work() -> Message:
            done = attempt(_prepared(row), self._embedder, self._form, self._folder)
            return {"failure": "", "finished": save(self._folder, done).to_json()}

        return _or_failure(row, work)


def _or_failure(row: Message, work: Callable[[], Message]) -> Message:
    """The next message, or the one that says why there is none."""
    if row["failure"]:
        return _failure(row["failure"])
    try:
        return work()
    except Exception as error:
        return _failure(str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}")


def _failure(reason: str) -> Message:
    return {"failure": reason, "table": b"", "sequences": b"", "finished": b""}


def _origin(model: Model, settings: Settings) -> Origin:
    return origin_of(model.embedder(), settings)


def _read(shard: Shard, fields: Fields, schema: pa.Schema, wanted: frozenset[int]) -> Iterator[pa.Table]:
    """A table of one row for each part."""
    try:
        for block in read_shard(shard, fields, schema, wanted):
            yield pa.Table.from_pylist([_block_message(block)])
    except (InputError, JobError) as error:
        yield pa.Table.from_pylist([_failure(str(error))])


def _block_message(block: Block) -> Message:
    told = {"part": asdict(block.part), "tasks": block.tasks, "refused": block.refused}
    return {"failure": "", "table": _to_bytes(block.table, told), "sequences": b"", "finished": b""}


def _block(row: Message) -> Block:
    table, told = _from_bytes(row["table"])
    return Block(Part(**told["part"]), table, told["tasks"], [(name, reason) for name, reason in told["refused"]])


def _prepared_message(prepared: Prepared) -> Message:
    told = {"part": asdict(prepared.part), "owners": prepared.owners, "failed": prepared.failed, "cut": prepared.cut}
    sequences = pa.table(
        {
            "input_ids": pa.array([s.input_ids for s in prepared.sequences], pa.list_(pa.int32())),
            "task_id": pa.array([s.task_id for s in prepared.sequences], pa.int32()),
            "spans": pa.array([s.spans.reshape(-1) for s in prepared.sequences], pa.list_(pa.int32())),
        }
    )
    return {
        "failure": "",
        "table": _to_bytes(prepared.table, told),
        "sequences": _to_bytes(sequences, {}),
        "finished": b"",
    }


def _prepared(row: Message) -> Prepared:
    table, told = _from_bytes(row["table"])
    columns, _ = _from_bytes(row["sequences"])
    sequences = [
        Sequence(np.asarray(ids.values), task_id.as_py(), np.asarray(spans.values).reshape(-1, 2))
        for ids, task_id, spans in zip(columns["input_ids"], columns["task_id"], columns["spans"], strict=True)
    ]
    failed = [(name, reason) for name, reason in told["failed"]]
    return Prepared(Part(**told["part"]), table, sequences, told["owners"], failed, told["cut"])


def _to_bytes(table: pa.Table, told: dict[str, Any]) -> bytes:
    """A table with JSON beside it."""
    sink = pa.BufferOutputStream()
    kept = table.replace_schema_metadata({"told": json.dumps(told)})
    with pa.ipc.new_stream(sink, kept.schema) as writer:
        writer.write_table(kept)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _from_bytes(data: bytes) -> tuple[pa.Table, dict[str, Any]]:
    table = pa.ipc.open_stream(data).read_all()
    return table.replace_schema_metadata(None), json.loads(table.schema.metadata[b"told"])
