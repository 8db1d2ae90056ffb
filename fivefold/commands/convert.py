"""`fivefold convert`: a model in another checkpoint layout."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from fivefold import checkpoint
from fivefold.commands.loading import resolve_folder
from fivefold.errors import InputError


def run(args: Namespace) -> None:
    """Convert, then say what was written."""
    target = Path(args.target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not an empty folder; name a new one, so that nothing is overwritten")
    checkpoint.convert(resolve_folder(args.source, args), target, layout=args.layout)
    files = [path for path in target.rglob("*") if path.is_file()]
    print(f"{target}: {args.layout} layout, {len(files)} files, {sum(f.stat().st_size for f in files):,} bytes")
