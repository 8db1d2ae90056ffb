"""The files of the corpora, and `sources.json`, which says what is in them and where it came from.

The same packages, seed and options give the same bytes. A file is whole or not there, and `sources.json` is written last.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fivefold.errors import InputError
from fivefold.train.builder.fetching import Fetch, Package, version_of
from fivefold.train.builder.rows import FILES, LANGUAGES, Row, Wanted
from fivefold.train.builder.sieve import Sieve
from fivefold.train.builder.sources import Origin, chosen

NEAR = 0.8
SUMMARY = "sources.json"


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
        JobError: a package that cannot be had.
    """
    origins = chosen(choice.sources, with_gpl=choice.with_gpl)
    if unknown := set(choice.languages) - set(LANGUAGES):
        raise InputError(f"no source has {', '.join(sorted(unknown))}; there are: {' '.join(LANGUAGES)}")
    paths = {origin.name: [fetch(package) for package in origin.packages] for origin in origins}
    out.mkdir(parents=True, exist_ok=True)
    wanted = Wanted(frozenset(choice.languages) | {"en"}, choice.seed)
    sieve = Sieve(wanted.languages, choice.against, near=NEAR)
    summaries = []
    with ExitStack() as stack:
        files = {name: stack.enter_context(lzma.open(_partial(out / name), "wt", encoding="utf-8")) for name in FILES}
        for origin in origins:
            summaries.append(_write(origin, paths[origin.name], wanted, sieve, files))
            told(f"{origin.name}: {sum(kind['rows'] for kind in summaries[-1]['rows'])} rows")
    summary = {"seed": choice.seed, "languages": sorted(wanted.languages), "sources": summaries}
    _partial(out / SUMMARY).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in (*FILES, SUMMARY):
        _partial(out / name).replace(out / name)
    return out / SUMMARY


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _write(
    origin: Origin, paths: Sequence[Path], wanted: Wanted, sieve: Sieve, files: Mapping[str, IO[str]]
) -> dict[str, Any]:
    """Write one source's rows; what is said of it in the summary."""
    sieve.dropped.clear()
    rows: Iterable[Row] = sieve.through(origin.read(paths, wanted))
    if origin.cap:
        rows = sieve.capped(rows, origin.cap, wanted.seed)
    counts: Counter[tuple[str, str]] = Counter()
    languages: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
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
