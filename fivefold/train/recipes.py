"""The recipes: masked words, pairs, one family of adapters, distillation. Each takes a model and files, and leaves a folder:

    model/              the model in our own layout, which `Embedder.load` takes
    adapter-TASK/       each trained adapter as a PEFT folder
    log.jsonl, curves.png, checkpoints/

A run that was stopped goes on when it is called again with the same arguments. `nano.py` strings them together for v3-nano.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor

from fivefold.checkpoint import copy_side_files, load_encoder, read, save_adapter, write
from fivefold.config import ModelConfig
from fivefold.errors import InputError, UnknownTaskError
from fivefold.hub import resolve
from fivefold.layouts import is_bank
from fivefold.model import Encoder
from fivefold.tokenizer import Tokenizer
from fivefold.train.batches import pair_set, target_set
from fivefold.train.corpora import Pair
from fivefold.train.families import FAMILIES, KIND_NAMES, fit_family, prepared
from fivefold.train.loop import Run, Schedule, assemble, body, body_but_words, fit, learn
from fivefold.train.losses import Distillation, contrast
from fivefold.train.mlm import fit_masked
from fivefold.train.rows import Row, read_rows, read_texts
from fivefold.train.student import build_student, with_tasks, without_tasks
from fivefold.train.teacher import ModelTeacher, Teacher, read_teacher
from fivefold.train.tuples import says_something

MODEL = "model"
EPOCHS = 2
PAIR_TEMPERATURE = 0.05
USER_BATCH = 32
RATES = {"adapter": 1e-3, "pairs": 3e-5, "distil": 3e-4, "mlm": 1e-4}
"""Highest learning rates. The adapter's is twice the paper's largest: people have a few thousand rows, not a million."""

Change = Callable[[Schedule], Schedule]
"""What a caller wants other than the recipe has it, such as `lambda schedule: replace(schedule, steps=100)`."""


def unchanged(schedule: Schedule) -> Schedule:
    """As the recipe has it."""
    return schedule


def adapter(
    model: str,
    files: Sequence[Path],
    run: Run,
    *,
    family: str,
    temperature: float | None = None,
    change: Change = unchanged,
) -> Path:
    """Fine-tune one family's adapters on people's own rows; everything else stays as it is, to the bit.

    Args:
        model: a shipped name, a folder or a hub id that was fetched before.
        files: JSONL files (rows.py).
        run: where and on what.
        family: one of `FAMILIES`.
        temperature: of the losses, where not the family's: the closer a model's cosines lie together, the lower.
        change: of the schedule, which is two rounds over the rows, in batches of 32.

    Returns:
        The folder of the new model.

    Raises:
        InputError: a row, a family or a combination of the two that cannot be.
        UnknownTaskError: the model lacks the family's adapters.
    """
    source = resolve(model)
    sets = read_rows(files)
    given = {} if temperature is None else dict.fromkeys(KIND_NAMES, temperature)
    materials = prepared(family, sets, run.seed, given)
    encoder = _with_adapters(source, run.seed)
    tasks = FAMILIES[family].tasks
    if not set(tasks) <= set(encoder.config.lora_adaptations):
        raise UnknownTaskError(f"{model} has no adapters {', '.join(tasks)}, so there is nothing to fine-tune")
    how = change(_for_rows(sets, FAMILIES[family].max_length, RATES["adapter"]))
    state = fit_family(
        encoder, Tokenizer.from_folder(source, encoder.config).rust, family, materials, schedule=how, run=run
    )
    return _save(source, encoder.config, state, run, tasks)


def pairs(model: str, files: Sequence[Path], run: Run, *, change: Change = unchanged) -> Path:
    """Train the body on pairs, in contrast both ways; pairs that say the same words twice are left out."""
    source = resolve(model)
    sets = {name: _kept(name, rows) for name, rows in read_rows(files).items()}
    encoder = _body(source)
    trained = assemble(encoder, Tokenizer.from_folder(source, encoder.config).rust)
    learn(trained, body)
    loss = contrast(trained, PAIR_TEMPERATURE, encoder.config.matryoshka_dimensions, piece=run.piece)
    data = {name: pair_set(rows) for name, rows in sets.items()}
    how = change(_for_rows(sets, 192, RATES["pairs"]))
    state = fit(trained, data, dict.fromkeys(data, loss), schedule=how, run=run)
    return _save(source, encoder.config, state, run)


def distil(
    model: str,
    files: Sequence[Path],
    run: Run,
    *,
    teacher: str,
    words: bool = False,
    change: Change = unchanged,
) -> Path:
    """Train the body to give a teacher's vectors, or where those are of another width, its similarities.

    Args:
        model: the student.
        files: texts, one a line or as JSONL.
        run: where and on what.
        teacher: another model, or the file of weights that v3-nano learned from.
        words: train the word table too.
        change: of the schedule, which is two rounds over the texts.
    """
    source = resolve(model)
    texts = read_texts(files)
    encoder = _body(source)
    trained = assemble(encoder, Tokenizer.from_folder(source, encoder.config).rust)
    learn(trained, body if words else body_but_words)
    how = change(_for_rows({"texts": texts}, 192, RATES["distil"]))
    if len(texts) < how.batch_size:
        raise InputError(f"a batch is {how.batch_size} texts, but there are only {len(texts)}; give a smaller one")
    reader = open_teacher(teacher, how.max_length, bf16=run.bf16)
    loss = Distillation(trained, reader, encoder.config.matryoshka_dimensions)
    data = {"texts": target_set(texts, texts)}
    state = fit(trained, data, {"texts": loss}, schedule=how, run=run, teacher=reader)
    return _save(source, encoder.config, state, run)


def mlm(model: str, files: Sequence[Path], run: Run, *, change: Change = unchanged) -> Path:
    """Train the body to guess whole words that were hidden."""
    source = resolve(model)
    texts = read_texts(files)
    how = change(_for_rows({"texts": texts}, 512, RATES["mlm"]))
    encoder = _body(source)
    tokenizer = Tokenizer.from_folder(source, encoder.config).rust
    state = fit_masked(encoder, tokenizer, texts, schedule=how, run=run)
    return _save(source, encoder.config, state, run)


def open_teacher(name: str, max_length: int, *, bf16: bool = False) -> Teacher | ModelTeacher:
    """A file of the form that read_teacher knows, or a model of ours."""
    if Path(name).is_file():
        return Teacher(read_teacher(Path(name)), max_length=max_length, bf16=bf16)
    source = resolve(name)
    encoder = load_encoder(source, dtype=torch.float32, device=torch.device("cpu"))
    model = assemble(encoder, Tokenizer.from_folder(source, encoder.config).rust)
    return ModelTeacher(model, max_length, bf16=bf16)


def _with_adapters(source: Path, seed: int) -> Encoder:
    """The model of a folder; where it has no adapters at all, the five of the release, which change nothing yet."""
    encoder = load_encoder(source, dtype=torch.float32, device=torch.device("cpu"))
    if encoder.config.lora_adaptations:
        return encoder
    torch.manual_seed(seed)
    return build_student(with_tasks(encoder.config), encoder.state_dict())


def _body(source: Path) -> Encoder:
    """The model of a folder without its adapters."""
    config, tensors = read(source)
    return build_student(
        without_tasks(config), {name: tensor.float() for name, tensor in tensors.items() if not is_bank(name)}
    )


def _save(source: Path, config: ModelConfig, state: Mapping[str, Tensor], run: Run, tasks: Sequence[str] = ()) -> Path:
    """The trained model and its adapters, in place of those of an earlier run in the same folder."""
    target = run.folder / MODEL
    if PartialState().is_main_process:
        for old in (target, *run.folder.glob("adapter-*")):
            shutil.rmtree(old, ignore_errors=True)
        write(target, config, state)
        copy_side_files(source, target)
        for task in tasks:
            save_adapter(target, run.folder / f"adapter-{task}", task=task)
    PartialState().wait_for_everyone()
    return target


def _for_rows(sets: Mapping[str, Sequence[object]], max_length: int, rate: float) -> Schedule:
    """Two rounds over rows."""
    steps = sum(-(-len(rows) // USER_BATCH) for rows in sets.values()) * EPOCHS
    return Schedule(steps, rate, USER_BATCH, max_length)


def _kept(name: str, rows: Sequence[Row]) -> list[Pair]:
    kept = [row for row in rows if isinstance(row, Pair)]
    if len(kept) != len(rows):
        raise InputError(f"{name}: only pairs of query and passage can be learned from here")
    telling = [pair for pair in kept if says_something(pair)]
    if not telling:
        raise InputError(f"{name}: every passage repeats the words of its query, so there is nothing to learn")
    return telling
