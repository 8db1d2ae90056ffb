"""A model folder for ONNX: the graph, its weights, and beside them what text needs: config.json, the tokenizer, the cards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fivefold.checkpoint import copy_side_files, load_encoder, staged
from fivefold.config import ModelConfig
from fivefold.export.graph import write_graph
from fivefold.model import Encoder
from fivefold.shards import write_json

GRAPH = "model.onnx"
GRAPHS = (GRAPH, f"onnx/{GRAPH}")
"""Where a folder's graph is looked for: ours, and the published repository's."""


def export_onnx(source: Path, target: Path, *, int8: bool = False) -> None:
    """Write the model of a folder of any layout as a new ONNX folder, with all its tasks."""
    with staged(target) as staging:
        encoder = load_float32(source)
        _write(source, staging, encoder, encoder.config, int8=int8)


def export_onnx_merged(source: Path, target: Path, *, task: str | None, int8: bool = False) -> None:
    """Write one task alone, folded into the weights: a graph without `task_id`. `None` is the body without adapter.

    Raises:
        UnknownTaskError: the model has no such task.
    """
    with staged(target) as staging:
        encoder = load_float32(source)
        encoder.merge(task)
        prompts = {} if task is None else {task: encoder.config.prompt(task)}
        config = replace(encoder.config, lora_adaptations=tuple(prompts), task_instructions=prompts)
        _write(source, staging, encoder, config, int8=int8)


def load_float32(folder: Path) -> Encoder:
    """The encoder that a graph is written from."""
    return load_encoder(folder, dtype=torch.float32, device=torch.device("cpu"))


def _write(source: Path, folder: Path, encoder: Encoder, config: ModelConfig, *, int8: bool) -> None:
    write_graph(encoder, folder / GRAPH, int8=int8)
    write_json(folder / "config.json", config.to_dict())
    copy_side_files(source, folder)
