"""`fivefold batch`: a corpus of any size to vectors, in this process or on Ray, going on where it stopped."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from fivefold.commands.loading import counts, model_arguments, vector_arguments
from fivefold.config import task_name
from fivefold.errors import InputError, JobError
from fivefold.fleet import Fleet
from fivefold.jobs import estimate, sources
from fivefold.jobs.folder import ERRORS, Folder
from fivefold.jobs.job import Engine, Here, Summary, Target
from fivefold.jobs.job import run as run_job
from fivefold.jobs.sources import Fields
from fivefold.jobs.stores import open_store
from fivefold.jobs.stores.url import Url
from fivefold.jobs.work import Model, Settings


def run(args: Namespace) -> None:
    """Check, plan, do what is missing, say what was done."""
    fields = Fields(args.field, args.task_field, args.id_field, args.chunk_tokens is not None)
    settings = _settings(args)
    model = Model(**model_arguments(args))
    files = sources.files(args.inputs, args.input_format)
    least, most = counts(args.workers, "--workers")
    if args.dry_run:
        told = estimate.estimate(files, fields, settings, embedder=model.embedder(), workers=max(most, 1))
        print(json.dumps(told.to_dict()) if args.json else told)
        return
    if args.output is None:
        raise InputError("name the folder of vectors and progress with --output, or pass --dry-run")
    folder = Folder(args.output)
    target = None if args.store is None else Target(open_store(args.store), str(Url.parse(args.store)))
    with _engine(model, least, most, args) as engine:
        done = run_job(
            files,
            fields,
            settings,
            engine=engine,
            folder=folder,
            target=target,
            update=args.update,
            show_progress=not args.json,
        )
    _tell(done, args)


@contextmanager
def _engine(model: Model, least: int, most: int, args: Namespace) -> Iterator[Engine]:
    """The model in this process, or models on Ray."""
    if not most:
        yield Here(model.embedder())
        return
    from fivefold.jobs.cluster import Cluster, started  # Ray is an extra

    workers = Fleet(least, most, args.worker_cpus, args.worker_gpus, args.ray_address)
    with redirect_stdout(sys.stderr), started(workers):  # Ray tells of workers that died on standard output
        yield Cluster(model, workers)


def _settings(args: Namespace) -> Settings:
    return Settings(
        task=task_name(args.task, "retrieval.passage"),
        **vector_arguments(args),
        part_rows=args.part_rows,
    )


def _tell(done: Summary, args: Namespace) -> None:
    """The numbers, and what should not go unnoticed."""
    told = {"rows": done.rows, "reused": done.reused, "vectors": done.vectors, "tokens": done.tokens, "cut": done.cut}
    if args.json:
        print(json.dumps({**told, "failed": len(done.failed)}))
    else:
        print(f"{done.rows} rows, {done.reused} of them from before: {done.vectors} vectors, {done.tokens} tokens")
    if done.cut:
        print(f"fivefold: warning: {done.cut} texts were cut to the model's length", file=sys.stderr)
    if done.failed:
        where = f"{args.output}/{ERRORS}"
        message = f"{len(done.failed)} of {done.rows} rows failed; {where} names them and says why"
        if args.strict:
            raise JobError(message)
        print(f"fivefold: warning: {message}", file=sys.stderr)
