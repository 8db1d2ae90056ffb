"""From the model options of the command line to a model; and the folders that commands write models into."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from fivefold import hub
from fivefold.cores import available
from fivefold.embedder import Embedder
from fivefold.errors import InputError


def load_embedder(args: Namespace) -> Embedder:
    """The model that --model and its companions ask for, on no more threads than a container's limit lets run."""
    torch.set_num_threads(min(torch.get_num_threads(), available()))
    return Embedder.load(**model_arguments(args))


def model_arguments(args: Namespace) -> dict[str, Any]:
    """The arguments of `Embedder.load` that --model and its companions give."""
    names = (
        "model",
        "device",
        "dtype",
        "backend",
        "revision",
        "local_files_only",
        "accept_license",
        "max_batch_tokens",
    )
    return {
        **{name: getattr(args, name) for name in names},
        "adapters": _by_task("--adapter", args.adapter),
        "prompts": _by_task("--prompt", args.prompt),
    }


def vector_arguments(args: Namespace) -> dict[str, Any]:
    """What a text's vectors should be like, under the names that `embed` and `batch` give it."""
    return {
        "truncate_dim": args.truncate_dim,
        "max_length": args.max_length,
        "truncate": not args.no_truncate,
        "normalize": not args.no_normalize,
        "precision": args.precision,
        "chunk_tokens": args.chunk_tokens,
    }


def _by_task(option: str, given: list[str] | None) -> dict[str, str]:
    """NAME=VALUE words as a mapping."""
    found: dict[str, str] = {}
    for word in given or ():
        task, equals, value = word.partition("=")
        if not (task and equals) or task in found:
            raise InputError(f"{option} {word!r}: write NAME=VALUE, once for each task")
        found[task] = value
    return found


def resolve_folder(model: str, args: Namespace) -> Path:
    """The folder of a model, fetched from the hub where it is a hub id."""
    return hub.resolve(
        model,
        revision=args.revision,
        local_files_only=args.local_files_only,
        accept_license=args.accept_license,
    )


def new_folder(name: str) -> Path:
    """A folder that a command may write: one that is not there yet, or is empty."""
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; name a new one, so that nothing is overwritten")
    return folder


def written(folder: Path, what: str) -> str:
    """One line that says what a command wrote."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return f"{folder}: {what}, {len(files)} files, {sum(f.stat().st_size for f in files):,} bytes"


def counts(word: str, option: str) -> tuple[int, int]:
    """`4` or `1-4` -> the least and the most."""
    least, _, most = word.partition("-")
    try:
        found = int(least), int(most or least)
    except ValueError:
        raise InputError(f"{option} must be a number, or a range such as 1-4, got {word!r}") from None
    if not 0 <= found[0] <= found[1] or (found[1] and not found[0]):
        raise InputError(f"{option} must be a range from 1 up, the least first, such as 1-4, got {word!r}")
    return found
