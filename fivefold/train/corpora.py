"""Training text by source: what is read, under which licence, and how much of each.

Three kinds of row, as the corpora files hold them: a `Segment` is one sentence in many languages, a `Pair` is a query with
the passage that answers it, a `Labelled` text belongs to a class. Only sources whose licence is known for every row and is
not the GPL are named below; rows of all others in the same files are passed over.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fivefold.errors import MissingFileError


@dataclass(frozen=True, slots=True)
class Source:
    """One source: its name in the files, its licence, its share of the draws, and the documents taken from it."""

    name: str
    licence: str
    share: float
    documents: tuple[str, ...] = ()
    """Beginnings of row ids to take; empty takes all."""
    without: tuple[str, ...] = ()
    """Languages that are kept for evaluation."""
    mixed: bool = False
    """Its rows are under several licences, so each must say its own; those of the GPL are passed over."""


GNOME_USER_DOCS = ("/gnome-help/", "/system-admin-guide/")
"""Row ids of the two manuals of gnome-user-docs, the part of `help` whose licence is known."""

GPL = "GPL"

# General text outweighs software text, of which there is far more.
SEGMENTS = (
    Source("bible", "public domain translations", 0.20),
    Source("stsb", "CC-BY-SA-4.0 (STS-B train split, 11 languages)", 0.20),
    Source("lohelp", "MPL-2.0 (LibreOffice help)", 0.10),
    Source("mo", "MPL-2.0, LGPL, CC-BY-SA-3.0, BSD, MIT or Apache-2.0 (what programs say)", 0.12, mixed=True),
    Source("cldr", "Unicode-3.0 (CLDR annotations)", 0.05),
)
PAIRS = (
    Source("vital_desc", "CC-BY-SA-4.0 (Wikipedia leads)", 0.13),
    Source("vital_title", "CC-BY-SA-4.0 (Wikipedia leads)", 0.10),
    Source("wordnet", "WordNet licence", 0.09),
    Source("help", "CC-BY-SA-3.0 (gnome-user-docs)", 0.03, GNOME_USER_DOCS),
    Source("help_desc", "CC-BY-SA-3.0 (gnome-user-docs)", 0.01, GNOME_USER_DOCS),
    Source("lohelp", "MPL-2.0 (LibreOffice help)", 0.06),
    Source("lohelp_kw", "MPL-2.0 (LibreOffice help)", 0.01),
    Source("recipes", "CC-BY-SA (Wikibooks)", 0.02),
)
LABELS = (
    Source("ha_intent", "Apache-2.0 (home-assistant-intents)", 0.04, without=("it", "pl", "sv")),
    Source("vitaltopic", "CC-BY-SA-4.0 (Wikipedia leads)", 0.0),
    Source("wordnet_topic", "WordNet licence", 0.0),
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One sentence in several languages, English among them."""

    texts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the passage that answers it; `label` and passages that look like answers where the source has them."""

    lang: str
    query: str
    passage: str
    label: str | None = None
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text of a class."""

    lang: str
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Graded:
    """Two sentences and how alike people found them; STS-B counts from 0 to 5."""

    lang: str
    first: str
    second: str
    score: float


@dataclass
class Corpora:
    """All rows in memory, by source name."""

    segments: dict[str, list[Segment]] = field(default_factory=lambda: defaultdict(list))
    pairs: dict[str, list[Pair]] = field(default_factory=lambda: defaultdict(list))
    labels: dict[str, list[Labelled]] = field(default_factory=lambda: defaultdict(list))
    graded: dict[str, list[Graded]] = field(default_factory=lambda: defaultdict(list))


def read_corpora(folder: Path, stsb: Path) -> Corpora:
    """Read par, pairs_asym and labels from `folder` and the STS-B train files from `stsb`.

    What many rows have in common, codes of languages and passages asked for in several ways, is in memory once.
    """
    corpora = Corpora()
    passages: dict[str, str] = {}
    for name, row in _rows(folder / "par.jsonl.xz", "src", SEGMENTS):
        if "en" in row["t"] and len(row["t"]) > 1:
            corpora.segments[name].append(Segment({sys.intern(lang): text for lang, text in row["t"].items()}))
    for name, row in _rows(folder / "pairs_asym.jsonl.xz", "src", PAIRS):
        passage = passages.setdefault(row["p"], row["p"])
        corpora.pairs[name].append(Pair(sys.intern(row["lang"]), row["q"], passage, row.get("label")))
    for name, row in _rows(folder / "labels.jsonl.xz", "task", LABELS):
        corpora.labels[name].append(Labelled(sys.intern(row["lang"]), row["text"], sys.intern(row["label"])))
    corpora.graded.update(_graded(stsb))
    corpora.segments["stsb"] = _aligned(corpora.graded)
    return corpora


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; build the corpora first, or point to their folder")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from lines


def _rows(path: Path, key: str, sources: tuple[Source, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(source name, row) of the rows whose source and document are named in `sources`."""
    wanted = {source.name: source for source in sources}
    for line in _lines(path):
        row = json.loads(line)
        source = wanted.get(row[key])
        if source is None or row.get("lang") in source.without or (source.mixed and not _free(row)):
            continue
        if not source.documents or row.get("id", "").startswith(source.documents):
            yield row[key], row


def _free(row: dict[str, Any]) -> bool:
    """Whether a row says its licence, and that is not the GPL; the LGPL is taken."""
    licence: str = row.get("licence", GPL)
    return not licence.startswith(GPL)


def _graded(folder: Path) -> Iterator[tuple[str, list[Graded]]]:
    """STS-B train by language, from `stsb-<lang>-train.tsv.xz`."""
    for path in sorted(folder.glob("stsb-*-train.tsv.xz")):
        lang = path.name.split("-")[1]
        rows = (line.rstrip("\n").split("\t") for line in _lines(path))
        yield lang, [Graded(lang, first, second, float(score)) for first, second, score in rows]


def _aligned(graded: dict[str, list[Graded]]) -> list[Segment]:
    """The translations of STS-B keep the order of the English rows, so equal rows are translations."""
    if len({len(rows) for rows in graded.values()}) != 1:
        return []
    aligned = list(zip(*graded.values(), strict=True))
    return [_segment(rows, side) for rows in aligned for side in (0, 1)]


def _segment(rows: tuple[Graded, ...], side: int) -> Segment:
    return Segment({row.lang: (row.first, row.second)[side] for row in rows})
