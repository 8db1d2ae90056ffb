"""Sequences -> `PackedBatch`: one flat token axis, ordered by task and length, cut by a token budget.

Knows nothing of text. There is no padded twin: sequences lie end to end and `cu_seqlens` says where each begins.
Because a pack is ordered by task, it holds a few contiguous task slices known here on the host as plain integers,
which is all that LoRA routing needs (see lora.py).

Shapes: T tokens in the pack, B sequences, S spans, L tokens of one sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import numpy as np
import torch
from torch import Tensor

from fivefold.sequence import Sequence


@dataclass(frozen=True, slots=True)
class TaskSlice:
    """Tokens [start, stop) of a pack belong to sequences of this task (-1: none)."""

    task_id: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """What a backend sees: tokens end to end, and where sequences, tasks and spans lie on that axis."""

    input_ids: Tensor  # [T] int64
    position_ids: Tensor  # [T] int64, from 0 in every sequence
    cu_seqlens: Tensor  # [B + 1] int32
    spans: Tensor  # [S, 2] int64 on the host: positions in the pack, in the order of the sequences
    seqlens: tuple[int, ...]  # [B] on the host
    task_slices: tuple[TaskSlice, ...]
    task_ids: tuple[int, ...]  # [B] on the host

    @property
    def max_seqlen(self) -> int:
        """Length of the longest sequence."""
        return max(self.seqlens)

    @property
    def sequence_slices(self) -> tuple[TaskSlice, ...]:
        """The task slices counted in sequences instead of tokens, for layers that see one row each."""
        return _slices([(task_id, 1) for task_id in self.task_ids])

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch with what the model reads on `device`; the spans stay on the host."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
        )


def pack(sequences: list[Sequence]) -> PackedBatch:
    """Lay sequences end to end, in the order given; sequences of one task must be neighbours for few slices."""
    assert sequences, "an empty pack is a bug of the caller"
    seqlens = tuple(len(s) for s in sequences)
    starts = [0, *accumulate(seqlens)]
    spans = np.concatenate([s.spans.astype(np.int64) + start for s, start in zip(sequences, starts, strict=False)])
    return PackedBatch(
        input_ids=torch.from_numpy(np.concatenate([s.input_ids for s in sequences]).astype(np.int64)),
        position_ids=torch.from_numpy(np.concatenate([np.arange(n, dtype=np.int64) for n in seqlens])),
        cu_seqlens=torch.tensor(starts, dtype=torch.int32),
        spans=torch.from_numpy(spans),
        seqlens=seqlens,
        task_slices=_slices([(s.task_id, len(s)) for s in sequences]),
        task_ids=tuple(s.task_id for s in sequences),
    )


def rounded(batch: PackedBatch) -> PackedBatch:
    """The batch with a sequence behind it that nobody asked for, so that its number of tokens is one of few.

    oneDNN compiles its products for each number of tokens, a millisecond each, and keeps a thousand of them, half a
    megabyte each. Up to 128 tokens numbers go up by 8, then by 32.
    """
    tokens, last = len(batch.input_ids), batch.task_slices[-1]
    more = -tokens % (8 if tokens <= 128 else 32)
    if not more:
        return batch
    ids = batch.input_ids
    return replace(
        batch,
        input_ids=torch.cat((ids, ids.new_zeros(more))),
        position_ids=torch.cat((batch.position_ids, torch.arange(more, device=ids.device))),
        cu_seqlens=torch.cat((batch.cu_seqlens, batch.cu_seqlens[-1:] + more)),
        seqlens=(*batch.seqlens, more),
        task_slices=(*batch.task_slices[:-1], replace(last, stop=last.stop + more)),
        task_ids=(*batch.task_ids, batch.task_ids[-1]),
    )


def _slices(parts: list[tuple[int, int]]) -> tuple[TaskSlice, ...]:
    """Runs of neighbours of one task, from (task id, size) pairs."""
    slices, start = [], 0
    for task_id, run in groupby(parts, key=lambda part: part[0]):
        stop = start + sum(size for _, size in run)
        slices.append(TaskSlice(task_id, start, stop))
        start = stop
    return tuple(slices)


def plan(sequences: list[Sequence], max_batch_tokens: int) -> Iterator[list[int]]:
    """Cut sequences into packs of at most `max_batch_tokens` tokens; yields indices into `sequences`.

    Every index comes exactly once. Order is by task, then longest first, so that a pack holds few task slices and
    runs of
    equal length, and memory peaks in the first pack rather than the last. A sequence over the budget gets a pack of
    its own.
    """
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i].task_id, -len(sequences[i])))
    batch: list[int] = []
    tokens = 0
    for i in order:
        if batch and tokens + len(sequences[i]) > max_batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += len(sequences[i])
    if batch:
        yield batch
