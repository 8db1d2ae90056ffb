"""`fivefold similarity`: the cosine of two texts, or a table for more."""

from __future__ import annotations

import json
from argparse import Namespace

from fivefold.commands.loading import load_embedder
from fivefold.config import task_name
from fivefold.errors import InputError
from fivefold.vectors import FloatArray

SHOWN_CHARACTERS = 40


def run(args: Namespace) -> None:
    """Embed the texts and print their cosines."""
    if len(args.texts) < 2:
        raise InputError("similarity compares texts: give two or more")
    task = task_name(args.task, "text-matching")
    vectors = load_embedder(args).encode(args.texts, task=task, truncate_dim=args.truncate_dim)
    cosines = vectors @ vectors.T  # [n, n]
    if args.json:
        found = {"texts": args.texts, "task": task, "similarity": cosines.round(6).tolist()}
        print(json.dumps(found, ensure_ascii=False))
    elif len(args.texts) == 2:
        print(f"{cosines[0, 1]:.4f}")
    else:
        print(_table(args.texts, cosines))


def _table(texts: list[str], cosines: FloatArray) -> str:
    """A row for each text: its number, its cosines, its first characters."""
    head = "     " + " ".join(f"{column:>7}" for column in range(1, len(texts) + 1))
    body = (
        f"{number:>4} "
        + " ".join(f"{cosine:7.4f}" for cosine in row)
        + "  "
        + " ".join(text.split())[:SHOWN_CHARACTERS]
        for number, (text, row) in enumerate(zip(texts, cosines.tolist(), strict=True), 1)
    )
    return "\n".join([head, *body])
