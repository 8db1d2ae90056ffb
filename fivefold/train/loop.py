"""One run of sentence-transformers' trainer on our model: what learns, how long, where it is kept.

This is the room's door to `interop`, whose module the library's trainer, losses and samplers work on. A run that was stopped
goes on from its newest whole checkpoint, as if it had never stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer
from torch import Tensor, nn

from fivefold.interop.sentence_transformers import SentenceTransformer, Transformer
from fivefold.model import Encoder
from fivefold.train.batches import FOR_TEACHER, SAME, TARGET, sampler
from fivefold.train.journal import Journal

CHECKPOINTS = "checkpoints"
KEPT_CHECKPOINTS = 2
CLIP = 1.0
TEACHER = "teacher"
"""In the place of a task, for the columns that are not the model's."""
FIRST = "0.encoder."
"""Where the encoder's tensors are in the library's model."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast; the rate rises linearly over a share of the steps and falls linearly to zero."""

    steps: int
    learning_rate: float
    batch_size: int = 32
    max_length: int = 192
    warmup: float = 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run lives and what it runs on.

    Args:
        folder: for checkpoints, log and curves.
        seed: of everything that is drawn.
        bf16: autocast; weights and moments stay in float32.
        recompute: backward computes each layer again, for the memory of long texts.
        piece: rows that go through the model at one time where a contrast compares more than fit.
        cpu: leave a GPU alone.
        save_steps: steps between checkpoints.
        log_steps: steps of one line of the log.
    """

    folder: Path
    seed: int = 0
    bf16: bool = False
    recompute: bool = False
    piece: int | None = None
    cpu: bool = False
    save_steps: int = 500
    log_steps: int = 10


class Reads(Protocol):
    """Texts to features: what a teacher has beside its forward."""

    def features(self, texts: list[str]) -> dict[str, Tensor]:
        """`input_ids` [S, L] at least."""
        ...


Parts = Callable[[str], bool]
"""Which parameters learn, by name."""


def adapters(name: str) -> bool:
    """The low-rank terms, but for the pooler's, which no embedding passes through."""
    return "lora_" in name and not name.startswith("pooler.")


def body(name: str) -> bool:
    """Everything else."""
    return "lora_" not in name and not name.startswith("pooler.")


def body_but_words(name: str) -> bool:
    """The body with its word table frozen, so that it can go back to the bits it came in."""
    return body(name) and not name.startswith("embeddings.word_embeddings")


def assemble(encoder: Encoder, tokenizer: Tokenizer, *, task: str | None = None) -> SentenceTransformer:
    """An encoder as the library's model."""
    first = Transformer(encoder, tokenizer, default_task=task)
    return SentenceTransformer(modules=[first, Pooling(encoder.config.hidden_size, "mean"), Normalize()])


def learn(model: SentenceTransformer, parts: Parts) -> None:
    """From now on, gradients reach these parameters alone."""
    for name, parameter in model[0].encoder.named_parameters():
        parameter.requires_grad_(parts(name))


def fit(
    model: SentenceTransformer,
    data: Mapping[str, Dataset],
    losses: Mapping[str, nn.Module],
    *,
    schedule: Schedule,
    run: Run,
    router: Mapping[str, str] | None = None,
    teacher: Reads | None = None,
) -> dict[str, Tensor]:
    """Train in place: each batch is from one set of `data`, by its loss; sets come up as often as they have batches.

    Args:
        model: what learns, as `learn` has it.
        data: sets by name.
        losses: a loss for each set.
        schedule: how long and how fast.
        run: where and on what.
        router: task of each column where it is not the model's own.
        teacher: reads the column `target` in the model's place, and those whose names begin with it.

    Returns:
        The encoder's tensors, gathered from wherever Accelerate has them.
    """
    model.max_seq_length = min(schedule.max_length, model[0].encoder.config.max_length)
    if run.recompute:
        model.gradient_checkpointing_enable()
    # A name says what its one set is; the trainer takes one set and one loss, or several of both.
    single = len(data) == 1
    trainer = _Trainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            **arguments(schedule, run, min(map(len, data.values()))),
            batch_sampler=sampler,
            router_mapping=dict(router or {}),
        ),
        train_dataset=next(iter(data.values())) if single else DatasetDict(dict(data)),
        loss=next(iter(losses.values())) if single else dict(losses),
        data_collator=None if teacher is None else _collator(model, teacher, data, router or {}),
        callbacks=[Journal(run.folder)],
    )
    trainer.train(resume_from_checkpoint=newest_checkpoint(run.folder))
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name.removeprefix(FIRST): t.cpu().contiguous() for name, t in state.items() if name.startswith(FIRST)}


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]  # a class without types
    """The library's, without the statistics of a model card, which would read all texts before the first step."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None."""


def arguments(schedule: Schedule, run: Run, rows: int) -> dict[str, Any]:
    """What both trainers are told; the smallest set has `rows` rows."""
    return {
        "output_dir": str(run.folder / CHECKPOINTS),
        "max_steps": schedule.steps,
        "per_device_train_batch_size": schedule.batch_size,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": int(schedule.warmup * schedule.steps),
        "weight_decay": 0.0,  # or it would shrink the adapters that do not train
        "max_grad_norm": CLIP,
        "bf16": run.bf16,
        "use_cpu": run.cpu,
        "dataloader_pin_memory": torch.cuda.is_available() and not run.cpu,
        "dataloader_drop_last": rows >= schedule.batch_size,
        "seed": run.seed,
        "save_steps": run.save_steps,
        "save_total_limit": KEPT_CHECKPOINTS,
        "logging_steps": run.log_steps,
        "logging_nan_inf_filter": False,
        "report_to": "none",
    }


def newest_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end; what a kill left half-written goes away."""
    found = sorted((folder / CHECKPOINTS).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while found and not (found[-1] / "trainer_state.json").is_file():
        shutil.rmtree(found.pop(), ignore_errors=True)  # every process comes by
    return str(found[-1]) if found else None


def _collator(
    model: SentenceTransformer, teacher: Reads, data: Mapping[str, Dataset], router: Mapping[str, str]
) -> SentenceTransformerDataCollator:
    """The library's, where the columns for the teacher go through its tokenizer."""
    names = {name for rows in data.values() for name in rows.column_names}
    theirs = [name for name in names if name in (TARGET, SAME) or name.startswith(FOR_TEACHER)]

    def preprocess(inputs: list[str], *, prompt: str | None = None, task: str | None = None) -> dict[str, Any]:
        if task == TEACHER:
            return teacher.features(inputs)
        features: dict[str, Any] = model.preprocess(inputs, prompt=prompt, **({"task": task} if task else {}))
        return features

    return SentenceTransformerDataCollator(
        preprocess_fn=preprocess, router_mapping={**router, **dict.fromkeys(theirs, TEACHER)}
    )
