"""`fivefold search`: passages of files that answer a query, through an index that follows the files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fivefold.commands import index
from fivefold.commands.index import Hit, Index, Passage, Settings
from fivefold.commands.loading import load_embedder
from fivefold.config import task_name
from fivefold.embedder import Embedder
from fivefold.errors import FivefoldError, InputError
from fivefold.vectors import FloatArray

Blocks = Iterator[tuple[list[Passage], FloatArray]]

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".rst"})
PROBE_TEXT = "One sentence, asked of every model."
QUERY_TASKS = {"retrieval.passage": "retrieval.query"}
"""Adapter of the queries by adapter of the passages; any other task is symmetric."""
BLOCK_LINES = 2048
SHOWN_CHARACTERS = 240


def run(args: Namespace) -> None:
    """Bring the index up to date, then answer."""
    if args.top < 1:
        raise InputError(f"--top must be at least 1, got {args.top}")
    sources, skipped = _source_files(args.sources)
    if not sources and not args.index:
        raise InputError("nothing to search: name files or folders, or an --index made before")
    embedder = load_embedder(args)
    settings = _settings(embedder, args, keep=not args.sources)
    folder = Path(args.index) if args.index else _default_folder(sources, settings)
    opened = _updated(folder, settings, sources, embedder, args) if sources else Index.open(folder, settings)
    if skipped:
        _note(f"{skipped} files with other suffixes than {', '.join(sorted(TEXT_SUFFIXES))} were left out")
    _answer(opened, embedder, args)


def _settings(embedder: Embedder, args: Namespace, *, keep: bool) -> Settings:
    """Settings from the options; `keep` takes from an index that is only read what does not concern queries."""
    task = task_name(args.task, "retrieval.passage")
    probe = embedder.encode(PROBE_TEXT, task=task, truncate_dim=args.truncate_dim)
    lines, chunk_tokens = args.lines, args.chunk_tokens
    if keep:
        stored = index.read_settings(Path(args.index))
        lines, chunk_tokens = stored.lines, stored.chunk_tokens
    named = Path(embedder.model_name)
    model = str(named.resolve()) if named.is_dir() else embedder.model_name
    return Settings(model, task, len(probe), lines, chunk_tokens, tuple(probe.tolist()))


def _source_files(names: list[str]) -> tuple[list[Path], int]:
    """Files to index, in order and once each, and how many files of folders were left out for their suffix."""
    files: dict[Path, None] = {}
    skipped = 0
    for name in names:
        path = Path(name)
        if not path.is_dir():
            if not path.is_file():
                raise InputError(f"cannot read {name}: there is no such file or folder")
            files[path] = None
            continue
        inside = [p for p in sorted(path.rglob("*")) if p.is_file() and not _hidden(p.relative_to(path))]
        texts = [p for p in inside if p.suffix.lower() in TEXT_SUFFIXES]
        skipped += len(inside) - len(texts)
        files.update(dict.fromkeys(texts))
    if names and not files:
        raise InputError(f"there is no text file in {', '.join(names)} (looked for {', '.join(sorted(TEXT_SUFFIXES))})")
    return list(files), skipped


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _default_folder(sources: list[Path], settings: Settings) -> Path:
    """A folder of the user's cache, its name made from the sources and the settings."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = [settings.model, settings.task, settings.dimensions, settings.lines, settings.chunk_tokens]
    key = json.dumps([*named, *(str(path.resolve()) for path in sources)])
    return cache / "fivefold" / "indexes" / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _updated(folder: Path, settings: Settings, sources: list[Path], embedder: Embedder, args: Namespace) -> Index:
    """The index, holding exactly the sources as they are now; only changed files are embedded."""
    with index.locked(folder):
        if args.rebuild:
            for part in ("passages.lance", "sources.lance"):
                shutil.rmtree(folder / part, ignore_errors=True)
            (folder / "settings.json").unlink(missing_ok=True)
        opened = Index.open(folder, settings) if index.exists(folder) else Index.create(folder, settings)
        contents = {str(path): path for path in sources}
        stored = opened.fingerprints()
        gone = [source for source in stored if source not in contents]
        for source in gone:
            opened.remove(source)
        changed = [(s, p) for s, p in contents.items() if stored.get(s) != _fingerprint(p)]
        for source, path in tqdm(changed, desc="indexing", unit=" files", disable=None, file=sys.stderr):
            data = _read(path)
            opened.put(source, hashlib.sha256(data).hexdigest(), _embedded(source, data, embedder, opened.settings))
        if changed or gone:
            opened.tidy()
    counts = f"embedded {len(changed)}, reused {len(sources) - len(changed)}, removed {len(gone)}"
    _note(f"index: {len(sources)} files, {len(opened)} passages; {counts}")
    return opened


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


def _embedded(source: str, data: bytes, embedder: Embedder, settings: Settings) -> Blocks:
    """Passages of one file with their vectors, in blocks."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{source}, line {line}: not UTF-8; convert the file, or leave it out") from None
    try:
        cut = _by_line if settings.lines else _late
        yield from cut(source, text, embedder, settings)
    except FivefoldError as error:
        raise InputError(f"{source}: {error}") from error


def _late(source: str, text: str, embedder: Embedder, settings: Settings) -> Blocks:
    if not text.strip():
        return
    found = embedder.encode_chunks(
        text, chunk_tokens=settings.chunk_tokens, task=settings.task, truncate_dim=settings.dimensions
    )
    spans = found.spans.tolist()
    passages = [Passage(source, a, b, chunk) for (a, b), chunk in zip(spans, found.texts, strict=True)]
    yield passages, found.vectors


def _by_line(source: str, text: str, embedder: Embedder, settings: Settings) -> Blocks:
    lines = _line_passages(source, text)
    while block := list(islice(lines, BLOCK_LINES)):
        texts = [passage.text for passage in block]
        yield block, embedder.encode(texts, task=settings.task, truncate_dim=settings.dimensions)


def _line_passages(source: str, text: str) -> Iterator[Passage]:
    """Every line with text in it, without its line end."""
    start = 0
    for line in text.split("\n"):
        kept = line.rstrip("\r")
        if kept.strip():
            yield Passage(source, start, start + len(kept), kept)
        start += len(line) + 1


def _answer(opened: Index, embedder: Embedder, args: Namespace) -> None:
    """Search for each query as it comes."""
    task = opened.settings.task
    for query in _queries(args.query):
        vector = embedder.encode(query, task=QUERY_TASKS.get(task or "", task), truncate_dim=opened.settings.dimensions)
        hits = opened.search(np.asarray(vector), args.top)
        print(_json(query, hits) if args.json else _page(query, hits), flush=True)


def _queries(given: list[str] | None) -> Iterator[str]:
    """From the options, else from a prompt on a terminal, else one a line of standard input."""
    if given:
        yield from given
    elif sys.stdin.isatty():
        yield from _prompted()
    else:
        yield from _piped()


def _piped() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            query = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise InputError(f"standard input, line {number}: the query is not UTF-8") from None
        if query:
            yield query


def _prompted() -> Iterator[str]:
    _note("type a query, an empty line to leave")
    while True:
        try:
            query = input("query> ").strip()
        except EOFError:
            return
        if not query:
            return
        yield query


def _json(query: str, hits: list[Hit]) -> str:
    found = [
        {
            "score": round(hit.score, 6),
            "source": hit.passage.source,
            "start": hit.passage.start,
            "stop": hit.passage.stop,
            "text": hit.passage.text,
        }
        for hit in hits
    ]
    return json.dumps({"query": query, "hits": found}, ensure_ascii=False)


def _page(query: str, hits: list[Hit]) -> str:
    """The query, then for each hit its score, source, span and the beginning of the passage."""
    lines = [f"\n{query}"]
    for rank, hit in enumerate(hits, 1):
        at = hit.passage
        text = " ".join(at.text.split())
        shown = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
        lines += [f"{rank:>3}  {hit.score:.3f}  {at.source} [{at.start}:{at.stop}]", f"     {shown}"]
    return "\n".join(lines if hits else [*lines, "     nothing: the index is empty"])


def _note(text: str) -> None:
    print(text, file=sys.stderr)
