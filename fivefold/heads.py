"""Heads: hidden states -> scores, and scores with labels -> a loss. Pure torch, for any encoder.

Parameter names are those of the published BERT family, so that their checkpoints fit. A label of -100 counts for nothing,
as everywhere in torch.

Shapes: B sequences, L tokens of one sequence, D hidden, V vocabulary, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedLMHead(nn.Module):
    """A score for every piece of the vocabulary; `decoder` is meant to share the word table, and its bias `bias`."""

    def __init__(self, hidden_size: int, vocab_size: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.layer_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., D] -> [..., V]."""
        scores: Tensor = self.decoder(self.layer_norm(F.gelu(self.dense(hidden))))
        return scores


class SequenceClassificationHead(nn.Module):
    """Classes or values of a whole sequence, read from its first token."""

    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, num_labels)
        self.dropout = dropout

    def forward(self, first: Tensor) -> Tensor:
        """The first tokens' states [B, D] -> [B, C]."""
        x = self.dense(F.dropout(first, self.dropout, self.training)).tanh()
        scores: Tensor = self.out_proj(F.dropout(x, self.dropout, self.training))
        return scores


class TokenClassificationHead(nn.Linear):
    """Classes of every token."""

    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__(hidden_size, num_labels)
        self.dropout = dropout

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., D] -> [..., C]."""
        return super().forward(F.dropout(hidden, self.dropout, self.training))


class SpanHead(nn.Linear):
    """How well an answer would begin, and end, at every token."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 2)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """hidden [B, L, D] -> start and end scores, [B, L] each."""
        start, end = super().forward(hidden).unbind(-1)
        return start, end


def class_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of scores [..., C] where labels [...] name one class each."""
    return F.cross_entropy(scores.flatten(0, -2), labels.to(scores.device).flatten())


def value_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of scores [B, C]; labels [B] will do where there is one value each."""
    return F.mse_loss(scores, labels.to(scores.device).view_as(scores))


def classes_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of scores [B, C] where labels [B, C] say 0 or 1 to every class."""
    return F.binary_cross_entropy_with_logits(scores, labels.to(scores.device))


SEQUENCE_LOSSES = {
    "regression": value_loss,
    "single_label_classification": class_loss,
    "multi_label_classification": classes_loss,
}
"""Losses of a sequence head by what transformers calls the `problem_type`."""


def problem_type(num_labels: int, labels: Tensor) -> str:
    """The key of `SEQUENCE_LOSSES` that labels speak of: one value, one class (whole numbers), or a 0 or 1 for each."""
    if num_labels == 1:
        return "regression"
    whole = labels.dtype in (torch.long, torch.int)
    return "single_label_classification" if whole else "multi_label_classification"


def span_loss(scores: tuple[Tensor, Tensor], positions: tuple[Tensor, Tensor]) -> Tensor:
    """Mean of the cross-entropies of start and end, scores [B, L] and positions [B] or [B, 1] each.

    A position past the last token counts for nothing; one below the first is taken for the first.
    """
    length = scores[0].shape[-1]
    start, end = (
        F.cross_entropy(s, p.to(s.device).flatten().clamp(0, length), ignore_index=length)
        for s, p in zip(scores, positions, strict=True)
    )
    return (start + end) / 2
