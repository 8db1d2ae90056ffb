"""Losses of the distillation and of the adapters, each over vectors and over their Matryoshka prefixes.

Shapes: S texts, D hidden, d kept dims, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor], Tensor]


def cosine_distance(student: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cos over rows: student [S, D], target [S, D] -> scalar."""
    return (1 - F.cosine_similarity(student, target, dim=-1)).mean()


def _cosines(vectors: Tensor) -> Tensor:
    """Every row with every row: [S, D] -> [S, S]."""
    unit = F.normalize(vectors, dim=-1)
    return unit @ unit.T


def similarity_divergence(
    student: Tensor, target: Tensor, temperature: float, student_temperature: Tensor | float | None = None
) -> Tensor:
    """KL(target || student) of the softmax over in-batch similarities, mean over rows: [S, d], [S, D] -> scalar."""
    own = temperature if student_temperature is None else student_temperature
    wanted = _off_diagonal(_cosines(target) / temperature).log_softmax(-1)
    found = _off_diagonal(_cosines(student) / own).log_softmax(-1)
    return F.kl_div(found, wanted, log_target=True, reduction="batchmean")


def prefix_divergence(student: Tensor, target: Tensor, temperature: float, dims: tuple[int, ...]) -> Tensor:
    """Mean of `similarity_divergence` over prefixes of the student against the whole target: [S, D], [S, D] -> scalar.

    Cosines of a cut vector spread wider than those of the whole, so each prefix gets a temperature wider by the same factor.
    """
    whole = _spread(target)

    def divergence(cut: Tensor) -> Tensor:
        return similarity_divergence(cut, target, temperature, temperature * _spread(cut.detach()) / whole)

    return over_prefixes(divergence, student, dims)


def _spread(vectors: Tensor) -> Tensor:
    """Standard deviation of the cosines of different rows; never zero, as it divides."""
    return _off_diagonal(_cosines(vectors)).std().clamp_min(1e-3)


def match_divergence(
    queries: Tensor, passages: Tensor, target_queries: Tensor, target_passages: Tensor, temperature: float
) -> Tensor:
    """KL of each query's softmax over the passages from the target's: queries [P, d], targets [P, D] -> scalar."""
    wanted = (F.normalize(target_queries, dim=-1) @ F.normalize(target_passages, dim=-1).T) / temperature
    found = (F.normalize(queries, dim=-1) @ F.normalize(passages, dim=-1).T) / temperature
    return F.kl_div(found.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")


def _off_diagonal(square: Tensor) -> Tensor:
    """[S, S] -> [S, S - 1] without the diagonal."""
    size = len(square)
    keep = ~torch.eye(size, dtype=torch.bool, device=square.device)
    return square[keep].view(size, size - 1)


def info_nce(queries: Tensor, passages: Tensor, temperature: float, same: Tensor | None = None) -> Tensor:
    """In-batch contrast in both directions: row i of queries [P, d] belongs to row i of passages [P, d] -> scalar.

    `same` [P, P] marks other rows that are no true negatives.
    """
    logits = F.normalize(queries, dim=-1) @ F.normalize(passages, dim=-1).T / temperature
    if same is not None:
        diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(same & ~diagonal, -torch.inf)
    rows = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2


def supervised_contrast(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Each row against its class (Khosla et al. 2020, arXiv 2004.11362, L_out): [S, d], [S] -> scalar."""
    log_share = _off_diagonal(_cosines(vectors) / temperature).log_softmax(-1)  # [S, S - 1]
    positive = _off_diagonal(labels[:, None] == labels)
    counts = positive.sum(1)
    per_row = (log_share * positive).sum(1)[counts > 0] / counts[counts > 0]
    return -per_row.mean() if len(per_row) else vectors.sum() * 0


def cosent(first: Tensor, second: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Pairs people found more alike must have the larger cosine: log(1 + sum exp((cos_j - cos_i) / t)) over scores i > j.

    first, second [P, d], scores [P] -> scalar.
    """
    cosines = F.cosine_similarity(first, second, dim=-1) / temperature
    gaps = (cosines[None, :] - cosines[:, None])[scores[:, None] > scores[None, :]]
    return torch.logsumexp(torch.cat([gaps.new_zeros(1), gaps]), 0)


def over_prefixes(loss: Loss, vectors: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean of `loss` over the prefixes of `vectors` [S, D] (Kusupati et al. 2022, arXiv 2205.13147)."""
    return torch.stack([loss(vectors[:, :d]) for d in dims]).mean()
