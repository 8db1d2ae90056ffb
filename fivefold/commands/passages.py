"""Text files to rows with vectors: every passage of a file, with the file's name and its span in it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from fivefold.embedder import Embedder
from fivefold.errors import FivefoldError, InputError
from fivefold.jobs.store import Origin, Rows
from fivefold.vectors import Array

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".rst"})
BLOCK_LINES = 2048
SCHEMA = pa.schema([("document", pa.string()), ("start", pa.int64()), ("stop", pa.int64()), ("text", pa.string())])
"""Of the columns: the file, the passage's half-open span of characters, and the passage."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cutting:
    """How a text becomes passages: by line, or as late chunks of at most so many tokens."""

    lines: bool
    chunk_tokens: int

    @classmethod
    def from_options(cls, args: Namespace) -> Cutting:
        """As --lines and --chunk-tokens ask."""
        return cls(args.lines, args.chunk_tokens)

    def differences(self, other: Cutting) -> list[str]:
        """Names of what differs, with both values."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{k}: {mine[k]!r} in the index, {theirs[k]!r} asked for" for k in mine if mine[k] != theirs[k]]


def source_files(names: list[str]) -> tuple[list[Path], int]:
    """Files to read, in order and once each, and how many files of folders were left out for their suffix."""
    files: dict[Path, Path] = {}
    skipped: set[Path] = set()
    for name in names:
        path = Path(name)
        if not path.is_dir():
            if not path.is_file():
                raise InputError(f"cannot read {name}: there is no such file or folder")
            files.setdefault(path.resolve(), path)
            continue
        inside = [p for p in sorted(path.rglob("*")) if p.is_file() and not _hidden(p.relative_to(path))]
        for found in inside:
            if found.suffix.lower() in TEXT_SUFFIXES:
                files.setdefault(found.resolve(), found)
            else:
                skipped.add(found.resolve())
    if names and not files:
        raise InputError(f"there is no text file in {', '.join(names)} (looked for {', '.join(sorted(TEXT_SUFFIXES))})")
    return list(files.values()), len(skipped - files.keys())


def skipped_note(skipped: int) -> str:
    """What to tell people of files that were left out."""
    return f"{skipped} files with other suffixes than {', '.join(sorted(TEXT_SUFFIXES))} were left out"


def read(path: Path) -> bytes:
    """A file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def embedded(source: str, data: bytes, embedder: Embedder, cutting: Cutting, origin: Origin) -> Iterator[Rows]:
    """The passages of one file, in blocks. An id is the file and the span, so a file read again gives the same."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{source}, line {line}: not UTF-8; convert the file, or leave it out") from None
    try:
        cut = _by_line(text, embedder, origin) if cutting.lines else _late(text, embedder, cutting, origin)
        for spans, vectors in cut:
            yield _rows(source, text, spans, vectors)
    except FivefoldError as error:
        raise InputError(f"{source}: {error}") from error


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _late(text: str, embedder: Embedder, cutting: Cutting, origin: Origin) -> Iterator[tuple[list[Span], Array]]:
    if text.strip():
        found = embedder.encode_chunks(
            text,
            chunk_tokens=cutting.chunk_tokens,
            task=origin.task,
            truncate_dim=origin.dimensions,
            normalize=origin.normalized,
            precision=origin.precision,
        )
        yield [(start, stop) for start, stop in found.spans.tolist()], found.vectors


def _by_line(text: str, embedder: Embedder, origin: Origin) -> Iterator[tuple[list[Span], Array]]:
    spans = _lines(text)
    while block := list(islice(spans, BLOCK_LINES)):
        texts = [text[start:stop] for start, stop in block]
        yield (
            block,
            embedder.encode(
                texts,
                task=origin.task,
                truncate_dim=origin.dimensions,
                normalize=origin.normalized,
                precision=origin.precision,
            ),
        )


def _lines(text: str) -> Iterator[Span]:
    """Every line with text in it, without its line end."""
    start = 0
    for line in text.split("\n"):
        kept = line.rstrip("\r")
        if kept.strip():
            yield start, start + len(kept)
        start += len(line) + 1


def _rows(source: str, text: str, spans: list[Span], vectors: Array) -> Rows:
    columns = pa.table(
        {
            "document": [source] * len(spans),
            "start": [start for start, _ in spans],
            "stop": [stop for _, stop in spans],
            "text": [text[start:stop] for start, stop in spans],
        },
        SCHEMA,
    )
    return Rows([f"{source}#{start}-{stop}" for start, stop in spans], vectors, columns)
