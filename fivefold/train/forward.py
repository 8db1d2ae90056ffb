"""Texts -> the student's pooled vectors, with gradients.

Workers share a step by texts, each with its own pack and one thread. Two threads that meet once forward and once backward
keep two cores busier than two threads that meet in every matrix product, above all on a machine that does other work too.

Shapes: S texts, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from fivefold.config import NO_TASK
from fivefold.model import Encoder
from fivefold.packing import pack
from fivefold.pooling import pool
from fivefold.sequence import Sequence

Part = Callable[[], Tensor]


def embed(
    encoder: Encoder,
    tokenizer: Tokenizer,
    texts: list[str],
    *,
    max_length: int,
    task_ids: list[int] | None = None,
    workers: int = 1,
) -> tuple[Tensor, int]:
    """Vectors [S, D] of texts that carry their prompts already, in their order, and how many tokens were read."""
    tasks = [NO_TASK] * len(texts) if task_ids is None else task_ids
    ids = [_cut(e.ids, max_length) for e in tokenizer.encode_batch_fast(texts)]
    order = sorted(range(len(ids)), key=lambda i: (tasks[i], -len(ids[i])))
    shares = [order[worker::workers] for worker in range(min(workers, len(order)))]
    parts: list[Part] = [partial(_vectors, encoder, [_sequence(ids[i], tasks[i]) for i in share]) for share in shares]
    vectors = parts[0]() if len(parts) == 1 else _shared(encoder, parts)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor([i for share in shares for i in share])] = torch.arange(len(order))
    return vectors[back], sum(map(len, ids))


def _vectors(encoder: Encoder, sequences: list[Sequence]) -> Tensor:
    """One pack through the model: [S, D]."""
    batch = pack(sequences)
    return pool(encoder(batch), batch.spans)


def _sequence(ids: list[int], task_id: int) -> Sequence:
    """A sequence pooled as a whole."""
    return Sequence(np.array(ids, dtype=np.int32), task_id, np.array([[0, len(ids)]], dtype=np.int32))


def _cut(ids: list[int], max_length: int) -> list[int]:
    """The first tokens and the end token."""
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def _shared(encoder: Encoder, parts: list[Part]) -> Tensor:
    """The parts' vectors end to end, each part in its own thread, there and back."""
    trained = [p for p in encoder.parameters() if p.requires_grad]
    found: Tensor = _Shared.apply(parts, *trained)  # type: ignore[no-untyped-call]
    return found


class _Shared(torch.autograd.Function):
    """Runs parts side by side; backward runs their graphs side by side and sums the gradients."""

    @staticmethod
    def forward(ctx: Any, parts: list[Part], *trained: Tensor) -> Tensor:
        """-> [S, D]."""
        with ThreadPoolExecutor(len(parts)) as threads:
            ctx.vectors = list(threads.map(lambda part: part(), parts))
        ctx.trained = trained
        return torch.cat([vectors.detach() for vectors in ctx.vectors])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of [S, D] -> one for every trained parameter."""
        (gradient,) = gradients
        pieces = torch.split(gradient, [len(vectors) for vectors in ctx.vectors])

        def back(vectors: Tensor, piece: Tensor) -> tuple[Tensor | None, ...]:
            found: tuple[Tensor | None, ...] = torch.autograd.grad(vectors, ctx.trained, piece, allow_unused=True)
            return found

        with ThreadPoolExecutor(len(pieces)) as threads:
            by_part = list(threads.map(back, ctx.vectors, pieces))
        return None, *(_sum(found) for found in zip(*by_part, strict=True))


def _sum(gradients: tuple[Tensor | None, ...]) -> Tensor | None:
    present = [gradient for gradient in gradients if gradient is not None]
    return torch.stack(present).sum(0) if len(present) > 1 else next(iter(present), None)
