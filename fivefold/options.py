"""The options of every command that runs a model. Every option's text says its default; docs/cli.md is made from them.

Choices are written out here, so that `--help` loads neither torch nor numpy; a test holds them to the tables that decide.
"""

from __future__ import annotations

import argparse

from fivefold.config import TASKS

Parser = argparse.ArgumentParser

DTYPES = ("float32", "bfloat16", "float16", "int8", "auto")
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
INPUT_FORMATS = ("text", "lines", "jsonl", "csv", "tsv", "parquet", "arrow")
OUTPUT_FORMATS = ("npy", "jsonl", "parquet")
BACKENDS = ("torch", "onnx")
EXPORT_FORMATS = ("onnx",)
LAYOUTS = ("jina", "hf", "transformers", "jinabert", "fivefold")
LIMIT_OPTIONS = {
    "max-input-length": "tokens of one text (default: all the model can read)",
    "max-client-batch-size": "texts of one request (default: 2048)",
    "max-request-tokens": "tokens of one request (default: 1048576)",
    "max-queue-tokens": "tokens that may wait before a request; over it requests get 429 (default: 4 batches a device)",
    "max-concurrent-requests": "requests at one time; over it they get 429 (default: 512)",
    "max-body-bytes": "bytes of one request (default: 33554432)",
    "body-seconds": "time for a request's head to arrive, and again for its body (default: 30)",
    "drain-seconds": "time to finish requests after SIGTERM (default: 30)",
    "tokenization-workers": "threads that turn text into tokens (default: 2)",
    "threads": "processor cores to compute on (default: all that the machine, or the container's limit, gives)",
}


def embed_options(add: Parser) -> None:
    """`fivefold embed`."""
    add.add_argument(
        "inputs", nargs="*", default=["-"], metavar="INPUT", help="files to read; - is standard input (default: -)"
    )
    add.add_argument(
        "--output", default="-", metavar="FILE", help="where vectors go; - is standard output (default: -)"
    )
    add.add_argument(
        "--input-format",
        choices=INPUT_FORMATS,
        help="text is one text a file, lines one a line (default: by the file's suffix; lines for standard input and "
        "text for suffixes nobody knows)",
    )
    add.add_argument(
        "--output-format", choices=OUTPUT_FORMATS, help="(default: by the file's suffix; jsonl for standard output)"
    )
    text_options(add)
    add.add_argument(
        "--embedding-field", default="embedding", metavar="NAME", help="name of the column to add (default: embedding)"
    )
    add.add_argument(
        "--chunk-tokens",
        type=int,
        metavar="N",
        help="late chunking: read each text as a whole and write one row for each chunk of at most N tokens, with the "
        "document's number, the chunk's character span and its text (default: off, one row a text)",
    )
    add.add_argument(
        "--no-truncate",
        action="store_true",
        help="fail on a text longer than the limit (default: cut it, with a warning)",
    )
    task_option(add, "none, the body without adapter or prompt; retrieval.passage with --chunk-tokens")
    vector_options(add)
    model_options(add)


def batch_options(add: Parser) -> None:
    """`fivefold batch`."""
    add.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="files, folders, or URLs of either, such as s3://bucket/rows"
    )
    add.add_argument(
        "--output",
        metavar="DIR",
        help="folder or URL for Parquet parts and the record of what is done (no default: required but for --dry-run)",
    )
    add.add_argument(
        "--store",
        metavar="URL",
        help="send vectors to a vector store, such as lancedb:///folder/table; --output then holds what is on its way "
        "(default: they stay in --output)",
    )
    corpus_options(add)
    worker_options(add)
    add.add_argument(
        "--update", action="store_true", help="embed parts again whose rows changed (default: refuse, and name them)"
    )
    add.add_argument(
        "--strict", action="store_true", help="exit with an error if a row failed (default: only say how many did)"
    )
    add.add_argument(
        "--dry-run",
        action="store_true",
        help="check all rows, embed a few, say what time, space and memory the job will take (default: do the job)",
    )
    add.add_argument("--json", action="store_true", help="print JSON and no progress (default: text for people)")
    task_option(add, "retrieval.passage")
    vector_options(add)
    model_options(add)


def corpus_options(add: Parser) -> None:
    """What a corpus is read as and written to."""
    add.add_argument(
        "--input-format",
        choices=INPUT_FORMATS,
        help="text is one text a file, lines one a line (default: by the file's suffix; text for suffixes nobody knows)",
    )
    text_options(add)
    add.add_argument(
        "--id-field",
        metavar="NAME",
        help="column or key with each row's id, a text or a whole number (default: the file and the row's number; the path of "
        "a text file)",
    )
    add.add_argument(
        "--chunk-tokens",
        type=int,
        metavar="N",
        help="late chunking: read each text as a whole and write one row for each chunk of at most N tokens, with the id "
        "document#n, the document's id and the chunk's character span (default: off, one row a text)",
    )
    add.add_argument(
        "--no-truncate",
        action="store_true",
        help="count a text longer than the limit as failed (default: cut it, and say how many were)",
    )
    add.add_argument(
        "--part-rows",
        type=int,
        default=2048,
        metavar="N",
        help="rows that are done, or done again, together (default: 2048)",
    )


def text_options(add: Parser) -> None:
    """Where a row's text and task are, and how long it may be."""
    add.add_argument(
        "--field", default="text", metavar="NAME", help="column or key that holds the text (default: text)"
    )
    add.add_argument(
        "--task-field",
        metavar="NAME",
        help="column or key with each row's task; an empty cell means --task (default: --task for all)",
    )
    add.add_argument(
        "--max-length", type=int, metavar="N", help="tokens a text may have (default: all the model can read)"
    )


def worker_options(add: Parser) -> None:
    """How many work, and on what."""
    add.add_argument(
        "--workers",
        default="0",
        metavar="N|MIN-MAX",
        help="models on Ray, as many as there is work for within a range; 0 is this process without Ray (default: 0)",
    )
    add.add_argument(
        "--worker-cpus", type=float, default=1, metavar="N", help="processor cores of a worker (default: 1)"
    )
    add.add_argument(
        "--worker-gpus", type=float, default=0, metavar="N", help="GPUs of a worker, or a part of one (default: 0)"
    )
    add.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="a Ray cluster; auto finds it (default: one of its own on this machine)",
    )


def search_options(add: Parser) -> None:
    """`fivefold search`."""
    add.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="files, or folders whose .txt, .text, .md and .rst files are taken (default: whatever --index holds)",
    )
    add.add_argument(
        "--query",
        action="append",
        metavar="TEXT",
        help="what to look for; may be given several times (default: ask on a terminal, else one query a line of "
        "standard input)",
    )
    add.add_argument("--top", type=int, default=5, metavar="N", help="passages to show for each query (default: 5)")
    add.add_argument(
        "--hybrid",
        action="store_true",
        help="rank by words too, and fuse both rankings (default: by vector alone)",
    )
    add.add_argument(
        "--json", action="store_true", help="print one JSON object for each query (default: text for people)"
    )
    add.add_argument(
        "--store", metavar="URL", help="search what is in a vector store, in place of files (default: files)"
    )
    add.add_argument(
        "--index",
        metavar="DIR",
        help="folder of the index (default: one in your cache folder for these sources and settings)",
    )
    add.add_argument("--rebuild", action="store_true", help="make the index anew (default: update what changed)")
    passage_options(add)
    task_option(
        add,
        "retrieval.passage, and retrieval.query for the queries; any other task is used for both; of a store, what it "
        "was made with",
    )
    dimension_option(add)
    model_options(add)


def index_options(add: Parser) -> None:
    """`fivefold index`."""
    add.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="files, or folders whose .txt, .text, .md and .rst files are taken",
    )
    add.add_argument(
        "--store",
        required=True,
        metavar="URL",
        help="where passages go: lancedb:///folder/table, qdrant://host/name, ... (required, no default)",
    )
    passage_options(add)
    task_option(add, "retrieval.passage")
    dimension_option(add)
    precision_option(add)
    model_options(add)


def passage_options(add: Parser) -> None:
    """How files are cut into passages."""
    add.add_argument(
        "--lines", action="store_true", help="every line is a passage (default: passages are late chunks of each file)"
    )
    add.add_argument(
        "--chunk-tokens", type=int, default=128, metavar="N", help="longest passage in tokens (default: 128)"
    )


def similarity_options(add: Parser) -> None:
    """`fivefold similarity`."""
    add.add_argument("texts", nargs="+", metavar="TEXT", help="two or more texts")
    add.add_argument("--json", action="store_true", help="print the matrix as JSON (default: text for people)")
    task_option(add, "text-matching")
    dimension_option(add)
    model_options(add)


def info_options(add: Parser) -> None:
    """`fivefold info`."""
    add.add_argument("--json", action="store_true", help="print JSON (default: text for people)")
    source_options(add)


def convert_options(add: Parser) -> None:
    """`fivefold convert`."""
    add.add_argument("source", metavar="SOURCE", help="a shipped name, a folder or a hub id")
    add.add_argument("target", metavar="TARGET", help="folder to write; it must not exist or be empty")
    add.add_argument(
        "--layout", required=True, choices=LAYOUTS, help="tensor names and files to write (required, no default)"
    )
    hub_options(add)


def export_options(add: Parser) -> None:
    """`fivefold export`."""
    add.add_argument("format", choices=EXPORT_FORMATS, help="what to write")
    add.add_argument("source", metavar="MODEL", help="a shipped name, a folder or a hub id")
    add.add_argument("target", metavar="FOLDER", help="folder to write; it must not exist or be empty")
    add.add_argument(
        "--int8", action="store_true", help="matrices in 8 bits, adapters in float32 (default: everything in float32)"
    )
    task_option(add, "all of them in one graph, which is told a task for each row")
    hub_options(add)


def serve_options(add: Parser) -> None:
    """`fivefold serve`."""
    add.add_argument("--host", metavar="ADDRESS", help="0.0.0.0 is every interface (default: 127.0.0.1)")
    add.add_argument("--port", type=int, metavar="N", help="(default: 8080)")
    add.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help="a key that clients must send; may be given several times, but shows in the list of processes: better in "
        "FIVEFOLD_API_KEYS, with commas between, or a file (default: none, everybody may come in)",
    )
    add.add_argument("--api-key-file", metavar="FILE", help="keys, one a line; # begins a comment (default: none)")
    add.add_argument(
        "--cors-origin",
        action="append",
        metavar="ORIGIN",
        help="web pages that may call the server; may be given several times, '*' is all (default: none)",
    )
    add.add_argument(
        "--served-model-name",
        action="append",
        metavar="NAME",
        help="the model's name in answers; given again, other names that requests may use, '*' is any (default: the "
        "last part of --model, and jina-embeddings-v3)",
    )
    add.add_argument(
        "--auto-truncate",
        action="store_true",
        help="cut long texts on TEI's routes where the request does not say (default: refuse them)",
    )
    for name, help_text in LIMIT_OPTIONS.items():
        add.add_argument(f"--{name}", type=int, metavar="N", help=help_text)
    add.add_argument(
        "--ray", action="store_true", help="serve from replicas on Ray Serve (default: from this process, without Ray)"
    )
    add.add_argument(
        "--replicas",
        metavar="N|MIN-MAX",
        help="with --ray: how many, within a range as many as there are requests for (default: 1)",
    )
    add.add_argument("--replica-cpus", type=int, metavar="N", help="with --ray: processor cores of each (default: 1)")
    add.add_argument("--replica-gpus", type=int, metavar="N", help="with --ray: GPUs of each (default: 0)")
    add.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="with --ray: deploy on a Ray cluster and leave; auto finds it (default: a Ray of its own, until a signal)",
    )
    add.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default: info)"
    )
    model_options(add)
    add.set_defaults(model=None)  # so that the environment can name it


def task_option(add: Parser, default: str) -> None:
    """`--task`, with what happens without it."""
    names = ", ".join(task.name for task in TASKS)
    add.add_argument("--task", metavar="TASK", help=f"adapter: {names}, or none (default: {default})")


def dimension_option(add: Parser) -> None:
    """`--truncate-dim`."""
    add.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first N dimensions (default: all)")


def precision_option(add: Parser) -> None:
    """`--precision`."""
    add.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the vectors (default: float32)")


def vector_options(add: Parser) -> None:
    """What vectors look like."""
    dimension_option(add)
    precision_option(add)
    add.add_argument("--no-normalize", action="store_true", help="leave vectors at their length (default: unit length)")


def model_options(add: Parser) -> None:
    """A model, and what it runs on."""
    source_options(add)
    add.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    add.add_argument(
        "--backend", choices=BACKENDS, default="torch", help="onnx is ONNX Runtime, on a CPU (default: torch)"
    )
    add.add_argument(
        "--dtype",
        choices=DTYPES,
        help="of the weights; auto takes the fastest that keeps quality (default: float32 on a CPU, bfloat16 on a GPU)",
    )
    add.add_argument(
        "--max-batch-tokens",
        type=int,
        metavar="N",
        help="tokens of one forward pass; less saves memory (default: 2048 on a CPU, 32768 on a GPU)",
    )
    add.add_argument(
        "--adapter",
        action="append",
        metavar="NAME=FOLDER",
        help="one more task: a LoRA that PEFT saved for this model; may be given several times (default: none)",
    )
    add.add_argument(
        "--prompt",
        action="append",
        metavar="NAME=TEXT",
        help="what goes before every text of a task (default: the checkpoint's own; nothing for an --adapter)",
    )


def source_options(add: Parser) -> None:
    """A model."""
    add.add_argument(
        "--model", default="v3-nano", metavar="MODEL", help="a shipped name, a folder or a hub id (default: v3-nano)"
    )
    hub_options(add)


def hub_options(add: Parser) -> None:
    """How a model comes from the hub."""
    add.add_argument(
        "--revision", metavar="REF", help="branch, tag or commit of a hub model (default: its main branch)"
    )
    add.add_argument(
        "--local-files-only",
        action="store_true",
        help="use the hub's local cache only (default: fetch what is missing)",
    )
    add.add_argument(
        "--accept-license",
        action="store_true",
        help="fetch weights under a non-commercial licence (default: refuse, and name the licence)",
    )
