"""The folder that ships: body and adapters joined, words in books, matrices in 8 bits, tokenizer and model card beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fivefold.checkpoint import WORD_TABLE, write
from fivefold.config import ModelConfig
from fivefold.layouts import is_bank
from fivefold.train.card import model_card
from fivefold.train.families import FAMILIES

Banks = Mapping[str, Tensor]
SOURCES = "sources.json"
"""In the working folder: what distillation drew from."""


def write_package(
    work: Path, body: Path, target: Path, *, updates: Mapping[str, int], longest: int, scores: Path | None = None
) -> None:
    """Join a body and the adapters of the working folder into the model folder `target`, which must not exist yet.

    Args:
        work: with config.json, tokenizer.json, what was drawn in distillation, and the adapters of every family.
        body: its tensors.
        target: the new folder.
        updates: of each stage, for the model card.
        longest: tokens of the longest text in training, for the model card.
        scores: what `fivefold eval` printed, for the model card.
    """
    config = ModelConfig.from_folder(work)
    sources = json.loads((work / SOURCES).read_text(encoding="utf-8"))
    groups = {family.tasks: load_file(work / f"adapters-{name}.safetensors") for name, family in FAMILIES.items()}
    banks = {name: bank.to(torch.float16) for name, bank in stack_adapters(config, groups).items()}
    write(target, config, {**load_file(body), **banks}, quantize="codebook-words", part_of=_part)
    shutil.copyfile(work / "tokenizer.json", target / "tokenizer.json")
    measured = scores.read_text(encoding="utf-8") if scores else ""
    (target / "README.md").write_text(
        model_card(config, updates=updates, longest=longest, sources=sources, scores=measured), encoding="utf-8"
    )


def _part(name: str) -> str:
    """Words, the body, and adapters: a new version of one leaves the files of the others as they are."""
    if name.startswith(WORD_TABLE):  # its books too
        return "words"
    return "adapters" if is_bank(name) else "body"


def stack_adapters(config: ModelConfig, groups: Mapping[tuple[str, ...], Banks]) -> dict[str, Tensor]:
    """Banks of the families -> banks of the whole model, tasks in the order of its configuration."""
    where = {task: (tensors, row) for tasks, tensors in groups.items() for row, task in enumerate(tasks)}
    names = next(iter(groups.values()))
    return {
        name: torch.stack([where[task][0][name][where[task][1]] for task in config.lora_adaptations]) for name in names
    }
