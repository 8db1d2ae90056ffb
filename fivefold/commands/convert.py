"""`fivefold convert`: a model in another checkpoint layout."""

from __future__ import annotations

from argparse import Namespace

from fivefold import checkpoint
from fivefold.commands.loading import new_folder, resolve_folder, written


def run(args: Namespace) -> None:
    """Convert, then say what was written."""
    target = new_folder(args.target)
    checkpoint.convert(resolve_folder(args.source, args), target, layout=args.layout)
    print(written(target, f"{args.layout} layout"))
