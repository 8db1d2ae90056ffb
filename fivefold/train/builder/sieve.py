"""Which rows are kept: in a wanted language, whole, not held out, none twice, no evaluation text, not too many."""

from __future__ import annotations

import heapq
import json
import lzma
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from fivefold.train.builder.languages import translated
from fivefold.train.builder.rows import Aligned, Asked, Classed, Row
from fivefold.train.corpora import LABELS, PAIRS, SEGMENTS
from fivefold.train.leaks import Index, normalised, read_strings

SHIPPED_SETS = Path(__file__).parent.parent.parent / "evaluate" / "data"
"""The evaluation sets that come along. They are read as files: training imports nothing of the evaluation."""
HELD_ARTICLES = "vital-retrieval.jsonl.xz"
HELD_LANGUAGES = {source.name: source.without for source in (*SEGMENTS, *PAIRS, *LABELS)}
"""Source -> languages that are evaluated on."""
BROKEN = re.compile("[\x00-\x1f\x7f-\x9f\ufffd]|[ÃÂ][\x80-\xbf]")
"""What no text has but where its bytes were read as another encoding's."""


class Sieve:
    """Lets rows through, once each, and counts what it held back by source and reason."""

    def __init__(self, languages: frozenset[str], sets: Iterable[Path], *, near: float) -> None:
        self.languages = languages
        texts = (text for path in (SHIPPED_SETS, *sets) for _, text in read_strings(path))
        self.index = Index(texts, near=near)
        self.held = held_articles(SHIPPED_SETS / HELD_ARTICLES)
        self.seen: set[int] = set()
        self.fresh: set[int] = set()
        """Seen since the last `begin`."""
        self.dropped: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        """(file, source) -> reason -> rows, since the last `begin`."""

    def begin(self, *, kept: bool) -> None:
        """Go on with the next source; what the last one had counts as seen if it was kept."""
        self.seen |= self.fresh if kept else set()
        self.fresh.clear()
        self.dropped.clear()

    def through(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows that are kept."""
        for row in rows:
            row = self._trimmed(row)
            if why := self._why_not(row):
                self.dropped[row.file, row.source][why] += 1
            else:
                yield row

    def capped(self, rows: Iterable[Row], cap: int, seed: int) -> Iterator[Row]:
        """At most `cap` rows of each source and language, or of a source where these are segments; drawn, in their order."""
        kept: dict[tuple[str, ...], list[tuple[int, int, Row]]] = defaultdict(list)
        for number, row in enumerate(rows):
            langs = () if isinstance(row, Aligned) else row.languages
            key = (row.file, row.source, *langs)
            heap, entry = kept[key], (-_hashed(row, seed), number, row)
            if len(heap) < cap:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
                self.dropped[row.file, row.source]["over the cap"] += 1
        yield from (row for _, row in heapq.merge(*(sorted(entry[1:] for entry in heap) for heap in kept.values())))

    def _trimmed(self, row: Row) -> Row:
        """A segment without languages that are not wanted, and translations that are none, broken or evaluation text."""
        if not isinstance(row, Aligned):
            return row
        texts = {x: text for x, text in row.texts.items() if x in self.languages and normalised(text)}
        kept, english = {}, texts.get("en", "")
        for lang, text in texts.items():
            if lang != "en" and (why := self._unfit(lang, text, english)):
                self.dropped[row.file, row.source][f"translation: {why}"] += 1
            else:
                kept[lang] = text
        return replace(row, texts=kept)

    def _unfit(self, lang: str, text: str, english: str) -> str:
        if BROKEN.search(text):
            return "broken"
        if not translated(lang, text, english):
            return "not in its language"
        return "evaluation text" if self.index.leak("", text) else ""

    def _why_not(self, row: Row) -> str:
        if isinstance(row, Aligned) and ("en" not in row.texts or len(row.texts) < 2):
            return "no translation"
        if not self.languages.issuperset(row.languages):
            return "language"
        if not all(map(normalised, row.strings)):
            return "no words"
        if any(map(BROKEN.search, row.strings)):
            return "broken"
        if isinstance(row, Asked) and not translated(row.lang, row.passage):
            return "not in its language"
        if isinstance(row, Asked | Classed) and self._held(row):
            return "held out"
        key = _hashed(row, 0)
        if key in self.seen or key in self.fresh:
            return "twice"
        self.fresh.add(key)
        checked = (row.texts["en"],) if isinstance(row, Aligned) else row.strings
        return "evaluation text" if any(self.index.leak("", text) for text in checked) else ""

    def _held(self, row: Asked | Classed) -> bool:
        return row.lang in HELD_LANGUAGES.get(row.source, ()) or (row.lang, row.id) in self.held


def held_articles(path: Path) -> frozenset[tuple[str, str]]:
    """(language, title) of the articles that the retrieval set asks for."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return frozenset((row["lang"], row["title"]) for row in map(json.loads, lines))


def _hashed(row: Row, seed: int) -> int:
    """The same for rows that say the same, whatever their case, punctuation and document."""
    said = "\0".join((str(seed), row.file, row.source, *row.languages, *map(normalised, row.strings)))
    return int.from_bytes(blake2b(said.encode(), digest_size=8).digest(), "big")
