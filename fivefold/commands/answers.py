"""Queries as they come, and what was found for them, as text for people or JSON."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator

from fivefold.errors import InputError
from fivefold.jobs.searching import Searcher
from fivefold.jobs.store import Hit

SHOWN_CHARACTERS = 240


def answer(searcher: Searcher, args: Namespace) -> None:
    """Search for each query as it comes."""
    show = _json if args.json else _page
    for query in _queries(args.query):
        print(show(query, searcher.search(query, limit=args.top, hybrid=args.hybrid)), flush=True)


def note(text: str) -> None:
    """Tell people something that is no answer."""
    print(text, file=sys.stderr)


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
    note("type a query, an empty line to leave")
    while True:
        try:
            query = input("query> ").strip()
        except EOFError:
            return
        if not query:
            return
        yield query


def _source(hit: Hit) -> object:
    """Where a hit is from: the document of a chunk, or the row itself."""
    document = hit.columns.get("document")
    return hit.id if document is None else document


def _json(query: str, hits: list[Hit]) -> str:
    found = []
    for hit in hits:
        rest = {name: value for name, value in hit.columns.items() if name != "document"}
        own = {"score": round(hit.score, 6), "source": _source(hit)}
        theirs = {name: rest.pop(name) for name in own if name in rest}  # the rows' own columns of these names
        found.append({**own, **rest, **({"columns": theirs} if theirs else {})})
    return json.dumps({"query": query, "hits": found}, ensure_ascii=False, default=str)


def _page(query: str, hits: list[Hit]) -> str:
    """The query, then for each hit its score, source, span and the beginning of the passage."""
    lines = [f"\n{query}"]
    for rank, hit in enumerate(hits, 1):
        text = " ".join(str(hit.columns.get("text") or "").split())
        shown = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
        start, stop = hit.columns.get("start"), hit.columns.get("stop")
        span = "" if start is None else f" [{start}:{stop}]"
        lines += [f"{rank:>3}  {hit.score:.3f}  {_source(hit)}{span}", f"     {shown}"]
    return "\n".join(lines if hits else [*lines, "     nothing: the index is empty"])
