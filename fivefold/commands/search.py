"""`fivefold search`: passages that answer a query, of files through an index that follows them, or of a vector store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path

from tqdm import tqdm

from fivefold.commands import folder
from fivefold.commands.answers import answer, note
from fivefold.commands.folder import FORMAT, Index
from fivefold.commands.loading import load_embedder
from fivefold.commands.passages import Cutting, embedded, read, skipped_note, source_files
from fivefold.config import task_name
from fivefold.embedder import Embedder
from fivefold.errors import InputError
from fivefold.jobs.origin import FITTING, origin_of
from fivefold.jobs.searching import Searcher
from fivefold.jobs.store import Origin
from fivefold.jobs.stores import open_store


def run(args: Namespace) -> None:
    """Bring the index up to date, if there is one, then answer."""
    if args.top < 1:
        raise InputError(f"--top must be at least 1, got {args.top}")
    if args.store is None:
        _search_files(args)
    else:
        _search_store(args)


def _search_store(args: Namespace) -> None:
    own = {"SOURCE": args.sources, "--index": args.index, "--rebuild": args.rebuild, "--lines": args.lines}
    if given := [name for name, value in own.items() if value]:
        raise InputError(f"{given[0]} does not go with --store, which searches what is there; ask with --query")
    store = open_store(args.store)
    try:
        stored = store.origin()
        if stored is not None and args.truncate_dim not in (None, stored.dimensions):
            raise InputError(
                f"--truncate-dim {args.truncate_dim} does not fit: {stored.dimensions} dimensions are stored"
            )
        answer(Searcher(store, load_embedder(args), task=task_name(args.task, FITTING)), args)
    finally:
        store.close()


def _search_files(args: Namespace) -> None:
    sources, skipped = source_files(args.sources)
    if not sources and not args.index:
        raise InputError("nothing to search: name files or folders, an --index made before, or a --store")
    embedder = load_embedder(args)
    origin = origin_of(embedder, task=task_name(args.task, "retrieval.passage"), truncate_dim=args.truncate_dim)
    cutting = Cutting.from_options(args) if sources else folder.read_cutting(Path(args.index))
    place = Path(args.index) if args.index else _default_folder(sources, cutting, origin)
    opened = (
        _updated(place, cutting, origin, sources, embedder, rebuild=args.rebuild)
        if sources
        else Index.open(place, cutting, origin)
    )
    if skipped:
        note(skipped_note(skipped))
    answer(Searcher(opened.store, embedder), args)


def _default_folder(sources: list[Path], cutting: Cutting, origin: Origin) -> Path:
    """A folder of the user's cache, its name made from the sources and the settings."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = [FORMAT, origin.model, origin.task, origin.dimensions, cutting.lines, cutting.chunk_tokens]
    key = json.dumps([*named, *(str(path.resolve()) for path in sources)])
    return cache / "fivefold" / "indexes" / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _updated(
    place: Path, cutting: Cutting, origin: Origin, sources: list[Path], embedder: Embedder, *, rebuild: bool
) -> Index:
    """The index, holding exactly the sources as they are now; only changed files are embedded."""
    with folder.locked(place):
        if rebuild:
            for part in folder.PARTS:
                shutil.rmtree(place / part, ignore_errors=True)
            (place / "settings.json").unlink(missing_ok=True)
        opened = (Index.open if folder.exists(place) else Index.create)(place, cutting, origin)
        contents = {str(path): path for path in sources}
        stored = opened.fingerprints()
        gone = [source for source in stored if source not in contents]
        for source in gone:
            opened.remove(source)
        changed = [(s, p) for s, p in contents.items() if stored.get(s) != _fingerprint(p)]
        for source, path in tqdm(changed, desc="indexing", unit=" files", disable=None, file=sys.stderr):
            data = read(path)
            opened.put(source, hashlib.sha256(data).hexdigest(), embedded(source, data, embedder, cutting, origin))
        if changed or gone:
            opened.tidy()
    counts = f"embedded {len(changed)}, reused {len(sources) - len(changed)}, removed {len(gone)}"
    note(f"index: {len(sources)} files, {len(opened)} passages; {counts}")
    return opened


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(read(path)).hexdigest()
