"""The command line: from arguments to the command that runs, and what an error looks like in a terminal.

Knows no command's work: the module of a command (fivefold/commands/) is imported when that command runs, so `--help` is
quick and loads neither torch nor numpy.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from fivefold import __version__
from fivefold.errors import FivefoldError, TruncationWarning
from fivefold.options import COMMANDS, Parser

HELP_WIDTH = 100
EXIT_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit status."""
    args = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("always", TruncationWarning)
            import_module(f"fivefold.commands.{args.command}").run(args)
        sys.stdout.flush()
    except FivefoldError as error:
        print(f"fivefold: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: nothing left to flush into
        return EXIT_BROKEN_PIPE
    return 0


def parser() -> Parser:
    """The whole command line."""
    formatter = partial(argparse.RawDescriptionHelpFormatter, width=HELP_WIDTH)
    top = Parser(
        prog="fivefold",
        description="Self-hosted jina-embeddings-v3: text in 30 languages to vectors, on your own machine.",
        formatter_class=formatter,
    )
    top.add_argument("--version", action="version", version=f"fivefold {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        described = "\n\n".join(part for part in (command.summary, command.details) if part)
        added = commands.add_parser(
            command.name, help=command.summary, description=described, formatter_class=formatter
        )
        command.options(added)
    return top


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Our own warnings in the form of our errors, without a source line."""
    print(f"fivefold: warning: {message}", file=sys.stderr)
