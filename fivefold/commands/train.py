"""`fivefold train`: a recipe from the command line's options."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fivefold.commands.loading import written
from fivefold.errors import InputError, MissingExtraError

try:
    from fivefold.train import recipes
    from fivefold.train.builder.building import Choice, build
    from fivefold.train.builder.fetching import Registries
    from fivefold.train.builder.rows import LANGUAGES, LISTED
    from fivefold.train.leaks import find_leaks
    from fivefold.train.loop import Run, Schedule
    from fivefold.train.nano import ALL, Plan, v3_nano
except ModuleNotFoundError as error:
    if (error.name or "").startswith("fivefold"):
        raise
    raise MissingExtraError(f"training needs {error.name}: pip install 'fivefold[train]'") from None

SHOWN_LEAKS = 20


def run(args: Namespace) -> None:
    """Run one recipe."""
    RECIPES[args.recipe](args)


def _run(args: Namespace, folder: str) -> Run:
    return Run(
        Path(folder),
        seed=args.seed,
        bf16=args.bf16,
        recompute=args.recompute,
        piece=args.piece,
        cpu=args.cpu,
        save_steps=args.save_steps,
        log_steps=args.log_steps,
    )


def _change(args: Namespace) -> Callable[[Schedule], Schedule]:
    """The recipe's own schedule with what was given in place of its numbers."""
    given = _given(args, "steps", "learning_rate", "batch_size", "max_length")
    return lambda schedule: replace(schedule, **given)


def _given(args: Namespace, *names: str) -> dict[str, Any]:
    """Those of these numbers that were given, which must be positive."""
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for name, value in given.items():
        if value <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be positive, got {value}")
    return given


def _files(args: Namespace) -> list[Path]:
    return [Path(name) for name in args.files]


def _mlm(args: Namespace) -> None:
    print(written(recipes.mlm(args.model, _files(args), _run(args, args.out), change=_change(args)), "a body"))


def _pairs(args: Namespace) -> None:
    print(written(recipes.pairs(args.model, _files(args), _run(args, args.out), change=_change(args)), "a body"))


def _adapter(args: Namespace) -> None:
    run, files = _run(args, args.out), _files(args)
    temperature = _given(args, "temperature").get("temperature")
    target = recipes.adapter(args.model, files, run, family=args.family, temperature=temperature, change=_change(args))
    print(written(target, "the model"))
    for folder in sorted(run.folder.glob("adapter-*")):
        print(written(folder, "a PEFT folder"))


def _distil(args: Namespace) -> None:
    run = _run(args, args.out)
    target = recipes.distil(args.model, _files(args), run, teacher=args.teacher, words=args.words, change=_change(args))
    print(written(target, "a body"))


def _nano(args: Namespace) -> None:
    work, corpora, stsb, teacher, target = map(Path, (args.work, args.corpora, args.stsb, args.teacher, args.target))
    scores = Path(args.scores) if args.scores else None
    plan = Plan(work, corpora, stsb, teacher, target, scores=scores)
    if args.schedules:
        plan = plan.with_schedules(json.loads(Path(args.schedules).read_text(encoding="utf-8")))
    v3_nano(plan, _run(args, args.work), args.stage or [ALL])


def _corpora(args: Namespace) -> None:
    languages = args.languages or LANGUAGES
    choice = Choice(args.sources, languages, [Path(p) for p in args.against], with_gpl=args.with_gpl, seed=args.seed)
    cache = Path(args.cache) if args.cache else Path(args.out) / "packages"
    print(f"{build(Path(args.out), choice, Registries(cache, LISTED), print)}: what is in the corpora")


def _check(args: Namespace) -> None:
    leaks = find_leaks([Path(p) for p in args.corpora], [Path(p) for p in args.against], near=args.near)
    for leak in leaks[:SHOWN_LEAKS]:
        print(f"{leak.where}: {leak.text!r} is {leak.kind} {leak.evaluation!r}")
    if leaks:
        raise InputError(f"{len(leaks)} texts of the evaluation sets are in the training text; take them out")
    print("no evaluation text found")


RECIPES: Mapping[str, Callable[[Namespace], None]] = {
    "mlm": _mlm,
    "pairs": _pairs,
    "adapter": _adapter,
    "distil": _distil,
    "v3-nano": _nano,
    "corpora": _corpora,
    "check-corpora": _check,
}
