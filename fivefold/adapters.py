"""PEFT folders beside a base model, one for each task: opened as terms of our LoRA banks, and written from them.

A folder may have a rank and a scaling of its own. Smaller ranks are padded with zeros, and where the scalings differ,
what the config's own leaves over is folded into lora_B; both leave the products as they were.

Shapes: K tasks, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fivefold.config import TASKS, ModelConfig
from fivefold.errors import CheckpointError, MissingFileError
from fivefold.layouts import (
    ADAPTER_CONFIG,
    PEFT_FORM,
    Form,
    Shapes,
    folder_name,
    is_bank,
    rank_axis,
    tensor_shapes,
)
from fivefold.peft import CONFIG_FILE, open_adapter
from fivefold.shards import ADAPTER_FILE, Shards, check_tensors, read_place, write_json, write_shards


@dataclass(frozen=True, slots=True)
class Adapter:
    """One opened PEFT folder."""

    shards: Shards
    form: Form
    rank: int
    scaling: float

    def check(self, banks: Shapes) -> None:
        """Every term of `banks` is there, at this folder's rank, and nothing else."""
        terms = {}
        for name, (_, *shape) in banks.items():
            shape[rank_axis(name)] = self.rank
            terms[name] = tuple(shape)
        check_tensors(self.shards, self.form, terms)

    def term(self, name: str, *, rank: int, factor: float) -> Tensor:
        """This task's item of the bank `name`, in our orientation, padded to `rank`, lora_B times `factor`."""
        tensor = read_place(self.shards, self.form.place(name))
        missing = rank - self.rank
        if missing:
            tensor = F.pad(tensor, (0, missing) if rank_axis(name) == 1 else (0, 0, 0, missing))
        return _times(tensor, factor) if name.endswith("lora_B") else tensor


def _times(tensor: Tensor, factor: float) -> Tensor:
    """The product, in float32 where the stored dtype cannot hold it exactly."""
    if factor == 1.0:
        return tensor
    product = tensor.float() * factor
    narrow = product.to(tensor.dtype)
    return narrow if torch.equal(narrow.float(), product) else product


def read_bank(adapters: tuple[Adapter, ...], name: str, config: ModelConfig) -> Tensor:
    """One term for each task, stacked: [K, ...]."""
    terms = [a.term(name, rank=config.lora_rank, factor=a.scaling / config.lora_scaling) for a in adapters]
    dtype = reduce(torch.promote_types, (term.dtype for term in terms))
    return torch.stack([term.to(dtype) for term in terms])


def open_adapters(folder: Path, config: ModelConfig) -> tuple[ModelConfig, tuple[Adapter, ...]]:
    """The adapters beside the base in `folder`, and the config with their tasks, rank and scaling.

    No adapter folder at all is the base alone, which has no tasks, so asking for one is an error.
    Some of the folders but not all is an error here.
    """
    found = {path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}")}
    if not found:
        return replace(config, lora_adaptations=(), task_instructions={}), ()
    config = _with_tasks(config, found)
    _check_folders(folder, config, found)
    adapters = tuple(_open_adapter(folder / folder_name(task), config) for task in config.lora_adaptations)
    return _with_scaling(config, adapters), adapters


def _check_folders(folder: Path, config: ModelConfig, found: set[str]) -> None:
    wanted = {folder_name(task) for task in config.lora_adaptations}
    missing, unknown = ", ".join(sorted(wanted - found)), ", ".join(sorted(found - wanted))
    if missing:
        raise MissingFileError(
            f"{folder} lacks the adapter folders {missing}, whose tasks config.json lists in lora_adaptations; "
            f"fetch them too, or take the tasks out of the list"
        )
    if unknown:
        raise CheckpointError(
            f"{folder} has adapter folders that config.json does not list in lora_adaptations: {unknown}; "
            f"add them to the list, or move them away"
        )


def _with_tasks(config: ModelConfig, found: set[str]) -> ModelConfig:
    """The config with tasks named after the folders, where it names none itself: known tasks first, in their order."""
    if config.lora_adaptations:
        return config
    known = [task for task in TASKS if folder_name(task.name) in found]
    others = sorted(found - {folder_name(task.name) for task in known})
    return replace(
        config,
        lora_adaptations=(*(task.name for task in known), *others),
        task_instructions={task.name: task.prompt for task in known} | dict.fromkeys(others, ""),
    )


def _with_scaling(config: ModelConfig, adapters: tuple[Adapter, ...]) -> ModelConfig:
    """The config with the widest rank, and the scaling that all adapters share or else its own."""
    rank = max(adapter.rank for adapter in adapters)
    shared = {adapter.scaling for adapter in adapters}
    scaling = shared.pop() if len(shared) == 1 else config.lora_scaling
    if (rank, scaling) == (config.lora_rank, config.lora_scaling):
        return config
    return replace(config, lora_rank=rank, lora_alpha=scaling * rank)


def _open_adapter(folder: Path, config: ModelConfig) -> Adapter:
    settings, shards, form = open_adapter(folder, filter(is_bank, tensor_shapes(config)))
    if settings.patterns:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: an adapter beside a base has one rank and alpha, not rank_pattern or alpha_pattern; "
            f"take the folder out and load it with Embedder.load(..., adapters={{name: folder}})"
        )
    return Adapter(shards, form, settings.rank, settings.scaling())


def write_adapters(folder: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """One PEFT folder for each task, with the published names."""
    banks = {name: bank for name, bank in tensors.items() if is_bank(name)}
    for task_id, task in enumerate(config.lora_adaptations):
        path = folder / folder_name(task)
        path.mkdir()
        write_adapter(path, config, {name: bank[task_id] for name, bank in banks.items()}, PEFT_FORM)


def write_adapter(folder: Path, config: ModelConfig, terms: Mapping[str, Tensor], form: Form) -> None:
    """One task's terms, by the names of their banks, as a PEFT folder with the names of `form`."""
    alpha = int(config.lora_alpha) if config.lora_alpha == int(config.lora_alpha) else config.lora_alpha
    write_json(folder / CONFIG_FILE, {**ADAPTER_CONFIG, "r": config.lora_rank, "lora_alpha": alpha})
    write_shards(folder, form.split(terms), max_shard_bytes=2**63, file=ADAPTER_FILE)
