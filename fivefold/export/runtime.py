"""ONNX Runtime as a `Backend` (embedder.py): a packed batch goes through the graph as rows of about equal length.

Shapes: T tokens in the pack, B rows, L tokens of the longest row, D hidden, K tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fivefold.config import NO_TASK, ModelConfig
from fivefold.errors import CheckpointError, InputError
from fivefold.export.folder import GRAPH, GRAPHS, load_float32
from fivefold.export.graph import write_graph
from fivefold.packing import PackedBatch

FULLNESS = 0.75
"""Rows run together while each is at least so long as this part of the longest."""
ERRORS_ONLY = 3


class TaskInput(Enum):
    """How a graph is told the task."""

    EACH_ROW = "task_id [B], as ours"
    ALL_ROWS = "one task_id, as the published graph"
    NONE = "not at all: the graph has one task, or is the body alone"


def open_onnx(folder: Path) -> tuple[ModelConfig, OnnxBackend]:
    """The graph of a folder; where it has none, one is made of its weights, in float32 and for this process alone."""
    for place in GRAPHS:
        if (folder / place).is_file():
            config = ModelConfig.from_folder(folder)
            return config, OnnxBackend(folder / place, config)
    encoder = load_float32(folder)
    with TemporaryDirectory(prefix="fivefold-onnx-") as made:
        path = Path(made) / GRAPH
        write_graph(encoder, path)
        return encoder.config, OnnxBackend(path, encoder.config)


class OnnxBackend:
    """One graph in ONNX Runtime, on the CPU, with as many threads as torch has. Many threads may call it at once."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self.config = config
        self.session = _session(path)
        shapes = {value.name: value.shape for value in self.session.get_inputs()}
        self.states = self.session.get_outputs()[0]
        if shapes.keys() - {"task_id"} != {"input_ids", "attention_mask"} or len(self.states.shape) != 3:
            raise CheckpointError(
                f"{path} makes {self.states.name} {self.states.shape} of {', '.join(shapes)}; a graph of this model makes "
                "states of every token of input_ids, attention_mask and maybe task_id: write one with 'fivefold export'"
            )
        self.task_shape = shapes.get("task_id")
        self.task_input = _task_input(self.task_shape)
        self.served = _served(self.task_input, config)

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """Hidden states [T, D], in the graph's precision.

        Raises:
            InputError: the graph cannot do a task of the batch.
        """
        self._check_tasks(batch.task_ids)
        sequences = torch.split(batch.input_ids, list(batch.seqlens))
        found = [torch.empty(0)] * len(sequences)
        for rows in self._groups(batch):
            states = self._run([sequences[row] for row in rows], [batch.task_ids[row] for row in rows])
            for row, padded in zip(rows, states, strict=True):
                found[row] = padded[: batch.seqlens[row]]
        return torch.cat(found)

    def _run(self, sequences: list[Tensor], task_ids: list[int]) -> Tensor:
        """Ids [L] of each row, and its task -> states [B, L, D], padding included."""
        ids = pad_sequence(sequences, batch_first=True, padding_value=self.config.pad_token_id)
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        inputs = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        if self.task_input is TaskInput.EACH_ROW:
            inputs["task_id"] = np.array(task_ids)
        elif self.task_input is TaskInput.ALL_ROWS:
            inputs["task_id"] = np.full(self.task_shape or (), task_ids[0])
        (states,) = self.session.run([self.states.name], inputs)
        return torch.from_numpy(states)

    def _groups(self, batch: PackedBatch) -> Iterator[list[int]]:
        """Numbers of the rows that run together, longest first: little is padding, and tasks are apart where they must be."""
        apart = batch.task_ids if self.task_input is TaskInput.ALL_ROWS else (0,) * len(batch.task_ids)
        group: list[int] = []
        for row in sorted(range(len(apart)), key=lambda row: (apart[row], -batch.seqlens[row])):
            first = group[0] if group else row
            if apart[row] != apart[first] or batch.seqlens[row] < FULLNESS * batch.seqlens[first]:
                yield group
                group = []
            group.append(row)
        yield group

    def _check_tasks(self, task_ids: tuple[int, ...]) -> None:
        unserved = set(task_ids) - set(self.served)
        if unserved:
            names = {task_id: name for task_id, name in enumerate(self.config.lora_adaptations)} | {NO_TASK: None}
            raise InputError(
                f"this graph cannot do the task {names[min(unserved)]!r}, only: "
                f"{', '.join(repr(names[task_id]) for task_id in self.served)}; pass one of them, or use backend='torch'"
            )


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has an exception for each kind of failure, without a root of their own
        raise CheckpointError(
            f"{path} cannot be run by ONNX Runtime {onnxruntime.__version__}: fetch or write it again ({error})"
        ) from None


def _task_input(shape: list[int | str | None] | None) -> TaskInput:
    if shape is None:
        return TaskInput.NONE
    return TaskInput.ALL_ROWS if shape in ([], [1]) else TaskInput.EACH_ROW


def _served(task_input: TaskInput, config: ModelConfig) -> tuple[int, ...]:
    """Ids of the tasks a graph can do; the published one always applies an adapter."""
    tasks = tuple(range(len(config.lora_adaptations)))
    if not tasks if task_input is not TaskInput.NONE else len(tasks) > 1:
        raise CheckpointError(
            f"config.json lists {len(tasks)} tasks in lora_adaptations, but the graph beside it is told the task "
            f"{task_input.value}: these files belong to different models"
        )
    return {
        TaskInput.EACH_ROW: (*tasks, NO_TASK),
        TaskInput.ALL_ROWS: tasks,
        TaskInput.NONE: tasks or (NO_TASK,),
    }[task_input]
