"""The folder that ships: body and adapters joined, words in 4 bits, matrices in 8, tokenizer and model card beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fivefold.checkpoint import write
from fivefold.config import ModelConfig
from fivefold.train.adapters import GROUPS, stack_adapters
from fivefold.train.card import model_card


def write_package(work: Path, target: Path, *, scores: Path | None = None) -> None:
    """Join what the training commands left in `work` into the model folder `target`, which must not exist yet."""
    config = ModelConfig.from_folder(work)
    tensors = {**load_file(work / "body.safetensors"), **_banks(work, config)}
    write(target, config, tensors, quantize="int4-words")
    shutil.copyfile(work / "tokenizer.json", target / "tokenizer.json")
    measured = json.loads(scores.read_text(encoding="utf-8")) if scores else {}
    (target / "README.md").write_text(model_card(config, measured), encoding="utf-8")


def _banks(work: Path, config: ModelConfig) -> dict[str, Tensor]:
    """All adapters in half precision: a bank for each layer, tasks in the configuration's order."""
    groups = {group.tasks: load_file(work / f"adapters-{name}.safetensors") for name, group in GROUPS.items()}
    return {name: bank.to(torch.float16) for name, bank in stack_adapters(config, groups).items()}
