"""The command line: from arguments to the command that runs, and what an error looks like in a terminal.

Knows no command's work: the module of a command (fivefold/commands/) is imported when that command runs, so `--help` is
quick and loads neither torch nor numpy.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from fivefold import __version__
from fivefold.errors import FivefoldError, TruncationWarning
from fivefold.options import (
    Parser,
    batch_options,
    convert_options,
    embed_options,
    export_options,
    index_options,
    info_options,
    search_options,
    serve_options,
    similarity_options,
)
from fivefold.training_options import eval_options, train_options

HELP_WIDTH = 100
EXIT_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 2, 130, 141


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its module in fivefold/commands, one line of help, and the function that adds its options."""

    name: str
    summary: str
    options: Callable[[Parser], None]
    details: str = ""


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


COMMANDS = (
    Command(
        "embed",
        "Turn texts into vectors.",
        embed_options,
        "Reads plain text, lines, JSONL, CSV, TSV or Parquet; writes npy, JSONL or Parquet. JSONL and\n"
        "Parquet keep every column of the input and add the vector. A row that cannot be read or embedded\n"
        "stops the run and is named.",
    ),
    Command(
        "batch",
        "Turn a whole corpus into vectors: on several cores, GPUs or machines, going on where it was stopped.",
        batch_options,
        "Reads JSONL, CSV, TSV, Parquet, Arrow, lines, and folders of them or of text files; writes Parquet or a\n"
        "vector store. Started again, it does what is missing and nothing twice. Rows that fail are named in\n"
        "_fivefold/errors.jsonl of the output, and the job goes on.",
    ),
    Command(
        "search",
        "Find the passages of files that answer a query, in any language.",
        search_options,
        "The first run embeds the sources into an index; later runs embed only files that changed. The\n"
        "index belongs to one model, task and number of dimensions, and refuses queries with another; so\n"
        "does a vector store, searched with --store.",
    ),
    Command(
        "index",
        "Put the passages of files into a vector store.",
        index_options,
        "Run again, it replaces each named file's passages. The store keeps which model, task and number of\n"
        "dimensions its vectors are of, and others are refused.",
    ),
    Command(
        "eval",
        "Measure a model: similarity, search, classes, clusters, long documents.",
        eval_options,
        "Prints a table of every set and the means of its families; a progress line for each score goes to\n"
        "standard error. The files that are read as sets are described in docs/evaluation.md.",
    ),
    Command(
        "train",
        "Fine-tune an adapter on your own rows, or make a model anew.",
        train_options,
        "Writes the model, each trained adapter as a PEFT folder, a log and its curves. A run that was stopped\n"
        "goes on when the same command is given again. RECIPE --help shows a recipe's options.",
    ),
    Command("similarity", "Cosine similarity of texts: a number for two, a table for more.", similarity_options),
    Command("info", "What a model is: shapes, tasks, prompts, licence, files.", info_options),
    Command(
        "serve",
        "Answer over HTTP: Jina's, OpenAI's and TEI's APIs, and a page to try them.",
        serve_options,
        "Every option without a fixed list, but for --prompt, can also stand in the environment, as FIVEFOLD_ and its name:\n"
        "FIVEFOLD_MAX_QUEUE_TOKENS=65536. The command line wins. --device takes several, with commas between:\n"
        "one queue feeds them all. SIGTERM finishes what was accepted.",
    ),
    Command("convert", "Write a model in another checkpoint layout.", convert_options),
    Command(
        "export",
        "Write a model as a graph for another runtime.",
        export_options,
        "With --task the adapter is folded into the weights, and the graph needs to be told no task.",
    ),
)
