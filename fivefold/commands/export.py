"""`fivefold export`: a model as a graph for another runtime."""

from __future__ import annotations

from argparse import Namespace

from fivefold.commands.loading import new_folder, resolve_folder, written
from fivefold.config import task_name
from fivefold.export.folder import export_onnx, export_onnx_merged


def run(args: Namespace) -> None:
    """Export, then say what was written."""
    target = new_folder(args.target)
    source = resolve_folder(args.source, args)
    if args.task is None:
        export_onnx(source, target, int8=args.int8)
    else:
        export_onnx_merged(source, target, task=task_name(args.task, None), int8=args.int8)
    print(written(target, f"{args.format} graph"))
