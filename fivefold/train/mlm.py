"""Masked language modelling on transformers' own trainer and our class of its masked language model.

The room's other door to `interop`: a body goes there as a native checkpoint and comes back as one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from accelerate import PartialState
from datasets import Dataset
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Trainer, TrainingArguments

from fivefold.checkpoint import read, write
from fivefold.interop.transformers import JinaEmbeddingsV3ForMaskedLM
from fivefold.layouts import is_bank
from fivefold.model import Encoder
from fivefold.train.journal import Journal
from fivefold.train.loop import Run, Schedule, arguments, newest_checkpoint
from fivefold.train.masking import WholeWords


def fit_masked(
    encoder: Encoder, tokenizer: Tokenizer, texts: Sequence[str], *, schedule: Schedule, run: Run
) -> dict[str, Tensor]:
    """Train a body without adapters to guess hidden words; its tensors, and in `masked-lm` the model with its head.

    The pooler stays as it was: no hidden word is guessed from it.
    """
    model = _with_head(encoder)
    if run.recompute:
        model.gradient_checkpointing_enable()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments(schedule, run, len(texts)), remove_unused_columns=False),
        train_dataset=Dataset.from_dict({"text": list(texts)}),
        data_collator=WholeWords(
            tokenizer, min(schedule.max_length, encoder.config.max_length), encoder.config.pad_token_id
        ),
        callbacks=[Journal(run.folder)],
    )
    trainer.train(resume_from_checkpoint=newest_checkpoint(run.folder))
    trainer.save_model(str(run.folder / "masked-lm"))
    PartialState().wait_for_everyone()
    return {**encoder.state_dict(), **_body(run.folder / "masked-lm")}


def _with_head(encoder: Encoder) -> JinaEmbeddingsV3ForMaskedLM:
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        native = Path(folder) / "native"
        write(native, replace(encoder.config, pooler=False), _unpooled(encoder.state_dict()), layout="transformers")
        model: JinaEmbeddingsV3ForMaskedLM = JinaEmbeddingsV3ForMaskedLM.from_pretrained(native)
        return model


def _body(folder: Path) -> dict[str, Tensor]:
    _, tensors = read(folder)
    return {name: tensor for name, tensor in tensors.items() if not is_bank(name)}


def _unpooled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}
