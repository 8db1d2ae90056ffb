"""The files of the corpora, and `sources.json`, which says what is in them and where it came from.

The same packages, seed and options give the same bytes. A file is whole or not there, and `sources.json` is written last.
All packages are fetched first. A source that cannot be read is left out, and said to be; the others are written, unless that
would take the place of corpora that are there.
"""

from __future__ import annotations

import json
import lzma
import sqlite3
import xml.etree.ElementTree as ET
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from fivefold.errors import InputError, JobError
from fivefold.train.builder.fetching import Fetch, Package, version_of
from fivefold.train.builder.rows import FILES, LANGUAGES, Row, Wanted
from fivefold.train.builder.sieve import Sieve
from fivefold.train.builder.sources import Origin, chosen

NEAR = 0.8
SUMMARY = "sources.json"
UNKNOWN = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    BadGzipFile,
    zlib.error,
    sqlite3.Error,
    ET.ParseError,
)
"""What readers raise on packages in a form that they were not written for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What goes in: names of sources (none: all), languages, and folders of evaluation text beside what ships."""

    sources: Sequence[str] = ()
    languages: Sequence[str] = LANGUAGES
    against: Sequence[Path] = ()
    with_gpl: bool = False
    seed: int = 0


def build(out: Path, choice: Choice, fetch: Fetch, told: Callable[[str], None] = lambda _: None) -> Path:
    """Write the corpora to `out`; `told` hears of each source. Returns the path of the summary.

    Raises:
        InputError: a source or language that does not exist.
        JobError: packages that cannot be had, before anything is written; or sources that could not be read, when the
            others are written.
    """
    origins = chosen(choice.sources, with_gpl=choice.with_gpl)
    if unknown := set(choice.languages) - set(LANGUAGES):
        raise InputError(f"no source has {', '.join(sorted(unknown))}; there are: {' '.join(LANGUAGES)}")
    paths = _fetched(origins, fetch)
    out.mkdir(parents=True, exist_ok=True)
    wanted = Wanted(frozenset(choice.languages) | {"en"}, choice.seed)
    sieve = Sieve(wanted.languages, choice.against, near=NEAR)
    summaries, failures = [], {}
    for origin in origins:
        try:
            summaries.append(_write(out, origin, paths[origin.name], wanted, sieve))
        except JobError as error:
            failures[origin.name] = str(error)
        sieve.begin(kept=origin.name not in failures)
        told(failures.get(origin.name) or f"{origin.name}: {sum(kind['rows'] for kind in summaries[-1]['rows'])} rows")
    written = [origin for origin in origins if origin.name not in failures]
    there = (out / SUMMARY).is_file()
    if written and not (failures and there):
        summary = {
            "seed": choice.seed,
            "languages": sorted(wanted.languages),
            "sources": summaries,
            "missing": failures,
        }
        _join(out, written, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    for path in out.glob("*.partial"):
        path.unlink()
    if failures:
        done = f"What was in {out} is as it was." if there else f"All others are in {out}."
        raise JobError(_missing(failures, written, done))
    return out / SUMMARY


def _fetched(origins: Sequence[Origin], fetch: Fetch) -> dict[str, list[Path]]:
    """The files of all packages, by source. What cannot be had is told when all others are there, and so in the cache."""
    paths: dict[str, list[Path]] = {}
    failures: dict[str, str] = {}
    for origin in origins:
        try:
            paths[origin.name] = [fetch(package) for package in origin.packages]
        except JobError as error:
            failures[origin.name] = str(error)
    if failures:
        rest = [origin for origin in origins if origin.name not in failures]
        raise JobError(_missing(failures, rest, "The packages of all others are kept."))
    return paths


def _missing(failures: Mapping[str, str], rest: Sequence[Origin], done: str) -> str:
    told = "\n".join(f"{name}: {why}" for name, why in failures.items())
    names = " ".join(origin.name for origin in rest)
    without = f"; or go on without, by --sources {names}" if rest else ""
    return f"these sources cannot be had:\n{told}\n{done} Mend it as it says there and give the same command again{without}"


def _part(out: Path, origin: Origin, file: str) -> Path:
    return _partial(out / f"{origin.name}-{file}")


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _join(out: Path, origins: Sequence[Origin], summary: str) -> None:
    """Put the sources' parts together, which makes whole files of the format, and everything in its place."""
    for name in FILES:
        with _partial(out / name).open("wb") as target:
            for origin in origins:
                with _part(out, origin, name).open("rb") as part:
                    copyfileobj(part, target)
    _partial(out / SUMMARY).write_text(summary, encoding="utf-8")
    for name in (*FILES, SUMMARY):
        _partial(out / name).replace(out / name)


def _read(origin: Origin, paths: Sequence[Path], wanted: Wanted) -> Iterator[Row]:
    """Its reader's rows.

    Raises:
        JobError: packages that the reader does not understand.
    """
    try:
        yield from origin.read(paths, wanted)
    except UNKNOWN as error:
        raise JobError(
            f"its packages are not as its reader knows them ({type(error).__name__}: {error}); see whether "
            f"{', '.join(path.name for path in paths[:3])}{' ...' if len(paths) > 3 else ''} are whole, delete what is not"
        ) from error


def _write(out: Path, origin: Origin, paths: Sequence[Path], wanted: Wanted, sieve: Sieve) -> dict[str, Any]:
    """Write one source's rows, to parts of its own; what is said of it in the summary."""
    rows: Iterable[Row] = sieve.through(_read(origin, paths, wanted))
    if origin.cap:
        rows = sieve.capped(rows, origin.cap, wanted.seed)
    counts: Counter[tuple[str, str]] = Counter()
    languages: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(lzma.open(_part(out, origin, name), "wt", encoding="utf-8")) for name in FILES
        }
        for row in rows:
            line = json.dumps({**row.raw(), "licence": origin.licence}, ensure_ascii=False, separators=(",", ":"))
            files[row.file].write(line + "\n")
            counts[row.file, row.source] += 1
            languages[row.file, row.source].update(row.languages)
    kinds = sorted(counts.keys() | sieve.dropped.keys())
    return {
        "source": origin.name,
        "licence": origin.licence,
        "packages": [_named(package, path) for package, path in zip(origin.packages, paths, strict=True)],
        "rows": [
            {
                "file": file,
                "source": source,
                "rows": counts[file, source],
                "languages": dict(sorted(languages[file, source].items())),
                "dropped": dict(sorted(sieve.dropped[file, source].items())),
            }
            for file, source in kinds
        ],
    }


def _named(package: Package, path: Path) -> dict[str, str]:
    return {"registry": package.registry, "name": package.name, "version": version_of(package, path)}
