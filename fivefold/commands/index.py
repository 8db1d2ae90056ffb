"""`fivefold index`: files into a vector store, in this process; for what outgrows it there is `fivefold batch`."""

from __future__ import annotations

import sys
from argparse import Namespace

from tqdm import tqdm

from fivefold.commands.answers import note
from fivefold.commands.loading import load_embedder
from fivefold.commands.passages import SCHEMA, Cutting, embedded, read, skipped_note, source_files
from fivefold.config import task_name
from fivefold.jobs.origin import origin_of, prepare
from fivefold.jobs.stores import open_store


def run(args: Namespace) -> None:
    """Embed every file and put its passages in the place of those it had."""
    sources, skipped = source_files(args.sources)
    store = open_store(args.store)
    try:
        new = store.origin() is None
        embedder = load_embedder(args)
        origin = origin_of(
            embedder,
            task=task_name(args.task, "retrieval.passage"),
            truncate_dim=args.truncate_dim,
            precision=args.precision,
        )
        prepare(store, origin, SCHEMA)
        cutting = Cutting.from_options(args)
        for path in tqdm(sources, desc="indexing", unit=" files", disable=None, file=sys.stderr):
            blocks = embedded(str(path), read(path), embedder, cutting, origin)
            if not new:
                store.delete(str(path))
            for rows in blocks:
                store.upsert(rows)
        if skipped:
            note(skipped_note(skipped))
        note(f"{args.store}: {len(sources)} files indexed, {store.count()} passages in all")
    finally:
        store.close()
