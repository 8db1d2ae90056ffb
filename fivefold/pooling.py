"""Hidden states and spans -> vectors: the mean over each span, in float32.

Plain embeddings and late chunks differ only in their spans, so this is the one pooling function of the system.

Shapes: T tokens in the pack, S spans, D hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pool(hidden: Tensor, spans: Tensor) -> Tensor:
    """Mean of hidden [T, D] over each half-open span of spans [S, 2] -> [S, D] float32.

    `spans` lies on the host, so that nothing waits for the device. Spans may overlap, nest and leave tokens out;
    each must hold at least one token.
    """
    lengths = spans[:, 1] - spans[:, 0]  # [S]
    tokens = hidden if _tiles(spans, len(hidden)) else hidden[_rows(spans, lengths).to(hidden.device)]
    owner = torch.repeat_interleave(torch.arange(len(spans)), lengths).to(hidden.device)
    sums = torch.zeros(len(spans), hidden.shape[1], dtype=torch.float32, device=hidden.device)
    return sums.index_add(0, owner, tokens.float()) / lengths.to(hidden.device)[:, None]


def _tiles(spans: Tensor, tokens: int) -> bool:
    """Whether the spans cover the token axis end to end, once: then no token has to be gathered."""
    starts, ends = spans[:, 0], spans[:, 1]
    return bool(starts[0] == 0 and ends[-1] == tokens and torch.equal(ends[:-1], starts[1:]))


def _rows(spans: Tensor, lengths: Tensor) -> Tensor:
    """Token positions of all spans, one span after the other: [sum of lengths]."""
    before = lengths.cumsum(0) - lengths  # [S] where each span begins in the result
    shift = torch.repeat_interleave(spans[:, 0] - before, lengths)
    return shift + torch.arange(len(shift))
