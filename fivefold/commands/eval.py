"""`fivefold eval`: the board of a model as a table, JSON and pictures."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from fivefold.commands.loading import load_embedder
from fivefold.config import NO_TASK_WORD
from fivefold.embedder import Embedder
from fivefold.errors import InputError, MissingExtraError

try:
    from fivefold.evaluate.board import KINDS, Score, board
    from fivefold.evaluate.lengths import by_length
    from fivefold.evaluate.report import document, table
    from fivefold.evaluate.sets import SHIPPED, EvalSet, read_sets
    from fivefold.evaluate.ways import BODY, OWN_WAY, Way, ablation, matrix, one
except ModuleNotFoundError as error:
    if (error.name or "").startswith("fivefold"):
        raise
    raise MissingExtraError(f"evaluation needs {error.name}: pip install 'fivefold[eval]'") from None


def run(args: Namespace) -> None:
    """Measure, print, write."""
    if args.json and not Path(args.json).parent.is_dir():  # said before the minutes of measuring
        raise InputError(f"cannot write {args.json}: {Path(args.json).parent} is not a folder; make it first")
    embedder = load_embedder(args)
    if args.mteb:
        print(json.dumps(_mteb(embedder, args)))
        return
    chosen = _chosen(args, embedder)
    scores = board(embedder, chosen, ways=_ways(args, embedder), dims=args.dims, kinds=args.kinds or KINDS, log=_show)
    if not scores:
        raise InputError("none of the sets is of the kinds asked for; see --kinds")
    print(table(scores))
    if args.json:
        Path(args.json).write_text(json.dumps(document(scores, model=args.model), indent=1), encoding="utf-8")
    if args.plots:
        _draw(scores, Path(args.plots))


def _chosen(args: Namespace, embedder: Embedder) -> list[EvalSet]:
    """The sets of the folders whose names begin as asked, at their lengths too."""
    sets = read_sets([Path(folder) for folder in args.sets] or [SHIPPED])
    named = [data for data in sets if not args.only or data.name.startswith(tuple(args.only))]
    return [*named, *by_length(named, embedder, args.lengths)]


def _ways(args: Namespace, embedder: Embedder) -> list[Way]:
    if args.matrix:
        ways = matrix(embedder.tasks)
    elif args.task is None:
        ways = [OWN_WAY if embedder.tasks else BODY]
    else:
        ways = [BODY if args.task == NO_TASK_WORD else one(args.task)]
    if args.no_prompts:
        ways = [Way(f"{way.name}, no prompts", way.adapters, bare=True) for way in ways]
    return [*ways, *(ablation() if args.ablation else [])]


def _show(score: Score) -> None:
    """What is known so far, for those who wait."""
    print(f"{score.set} {score.metric} ({score.way}, {score.dims}): {score.value:.4f}", file=sys.stderr)


def _draw(scores: list[Score], folder: Path) -> None:
    from fivefold.evaluate.plots import draw  # not needed by those who want no pictures

    for path in draw(scores, folder):
        print(path, file=sys.stderr)


def _mteb(embedder: Embedder, args: Namespace) -> dict[str, float]:
    from fivefold.evaluate.mteb import run as run_mteb  # takes seconds to import

    dims = args.dims[0] if args.dims else None
    return run_mteb(embedder, args.mteb, truncate_dim=dims)
