"""The losses that sentence-transformers lacks, and the paper's settings of those it has.

    contrast      InfoNCE both ways, all rows' negatives in the denominator from query to passage (the papers' L_triplet;
                  without negatives, their L_pairs): the library's, in small pieces where a batch exceeds memory
    ordered       CoSENT: the library's
    separated     CoSENT over every pair of a batch of labelled texts, 1 where the labels agree and 0 elsewhere
    Held          any of these, and the divergence from a teacher's similarities of the same texts
    Distillation  a teacher's vectors, the similarities between them, and its hidden states token by token

The first three are taken over the Matryoshka prefixes, with equal weights.

Shapes: S texts, D hidden, d kept dims.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    CoSENTLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util.distributed import all_gather
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.train.tokens import ends, token_distance

Features = dict[str, Any]
HELD_TEMPERATURE, PREFIX_WEIGHT = 0.02, 0.3
"""Of similarities that are compared with a teacher's, whose cosines lie close together."""
BOTH_WAYS: dict[str, Any] = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}


def contrast(model: nn.Module, temperature: float, dims: Sequence[int], *, piece: int | None = None) -> nn.Module:
    """For columns query, passage, any number of negatives; `piece` rows at a time go through the model."""
    options = {"scale": 1 / temperature, **BOTH_WAYS}
    if piece is None:
        return over_prefixes_of(model, MultipleNegativesRankingLoss(model, **options), dims)
    return over_prefixes_of(model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=piece, **options), dims)


def ordered(model: nn.Module, temperature: float, dims: Sequence[int]) -> nn.Module:
    """For columns first, second, score."""
    return over_prefixes_of(model, CoSENTLoss(model, scale=1 / temperature), dims)


def separated(model: nn.Module, temperature: float, dims: Sequence[int]) -> nn.Module:
    """For columns text, label."""
    return over_prefixes_of(model, LabelCoSENT(model, temperature), dims)


def over_prefixes_of(model: nn.Module, loss: nn.Module, dims: Sequence[int]) -> nn.Module:
    """Mean of a loss over prefixes of the vectors (Kusupati et al. 2022, arXiv 2205.13147); none leave it as it is."""
    if not dims:
        return loss
    wrapped: nn.Module = MatryoshkaLoss(model, loss, list(dims), [1 / len(dims)] * len(dims))
    return wrapped


class LabelCoSENT(nn.Module):
    """Pairs of one label must have larger cosines than pairs of two."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, features: Iterable[Features], labels: Tensor) -> Tensor:
        """Features of S texts, labels [S] -> scalar."""
        (texts,) = features
        return label_cosent(self.model(texts)["sentence_embedding"], labels, self.temperature)


def label_cosent(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """log(1 + sum exp((cos(c, d) - cos(a, b)) / t)) over pairs a, b of one label and c, d of two: [S, d], [S] -> scalar.

    The sum over all pairs of pairs is a product of two sums, so nothing of size S^4 is formed.
    """
    upper = torch.ones(len(labels), len(labels), dtype=torch.bool, device=vectors.device).triu(1)
    cosines = _cosines(vectors.float()) / temperature
    alike = labels[:, None] == labels
    gap = cosines[upper & ~alike].logsumexp(0) + (-cosines[upper & alike]).logsumexp(0)
    return F.softplus(gap)


class Held(nn.Module):
    """Another loss, and with `weight` the divergence of in-batch similarities from a teacher's, of whole vectors and prefixes.

    What the texts at hand do not teach stays as the teacher knows it.
    """

    def __init__(
        self, model: nn.Module, loss: nn.Module, teacher: nn.Module, dims: Sequence[int], weight: float
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.teacher: Any = teacher.eval().requires_grad_(False)
        self.dims, self.weight = tuple(dims), weight

    def forward(self, features: Sequence[Features], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Features of C columns of texts for the model, then of the same for the teacher -> the loss by its parts."""
        columns = len(features) // 2
        own, theirs = features[:columns], features[columns:]
        vectors: list[Tensor] = []
        model: Any = self.model
        forward = model.forward

        def noted(texts: Features) -> Any:
            found = forward(texts)
            vectors.append(found["sentence_embedding"].float())
            return found

        model.forward = noted  # the loss calls the model once for each column, or for several in their order
        try:
            parts = {"task": self.loss(own, labels)}
        finally:
            model.forward = forward
        with torch.no_grad():
            target = torch.cat([self.teacher(texts).float() for texts in theirs])
        student = torch.cat(vectors)
        held = similarity_divergence(student, target, HELD_TEMPERATURE)
        if self.dims:
            held = held + PREFIX_WEIGHT * prefix_divergence(student, target, HELD_TEMPERATURE, self.dims)
        return {**parts, "held": self.weight * held}


class Distillation(nn.Module):
    """10 (1 - cos) to the teacher, the divergence of the in-batch similarities, and with less weight that of prefixes.

    Where teacher and student differ in width there is no cosine between them, and the similarities alone are learned. With
    the lengths of the student's pieces, 10 (1 - cos) of the hidden states joins, token by token, for texts that come with
    what the teacher reads as the same text. A student whose vectors were turned (turning.py) has the `rotation` [D, D] that
    turns the teacher's likewise. Similarities are those to the texts of all processes.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        dims: Sequence[int],
        *,
        temperature: float = HELD_TEMPERATURE,
        distance_weight: float = 10.0,
        prefix_weight: float = PREFIX_WEIGHT,
        lengths: Tensor | None = None,
        rotation: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.teacher: Any = teacher.eval().requires_grad_(False)
        self.dims = tuple(dims)
        self.temperature, self.distance_weight, self.prefix_weight = temperature, distance_weight, prefix_weight
        self.lengths, self.rotation = lengths, rotation

    def forward(self, features: Sequence[Features], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Features of S texts for the student, of what the teacher reads in their place, and of them as it reads them.

        The last is read with `lengths` only. The result is the loss by its parts.
        """
        texts, targets, *same = features
        found = self.model(texts)
        vectors = found["sentence_embedding"].float()
        parts = {}
        if self.lengths is None:
            with torch.no_grad():
                target = self.teacher(targets).float()
        else:
            target, hidden = self.teacher.read(targets, same[0])
            own = ends(texts["input_ids"], self.lengths)
            hidden = self._turned(hidden)
            distance = token_distance(found["token_embeddings"].float(), own, hidden, self.teacher.ends(same[0]))
            parts["tokens"] = self.distance_weight * distance
        all_vectors, all_targets, own_rows = everywhere(vectors), everywhere(target), len(vectors)
        parts["divergence"] = similarity_divergence(all_vectors, all_targets, self.temperature, rows=own_rows)
        if self.dims:
            prefixes = prefix_divergence(all_vectors, all_targets, self.temperature, self.dims, rows=own_rows)
            parts["prefixes"] = self.prefix_weight * prefixes
        if vectors.shape == target.shape:
            parts["distance"] = self.distance_weight * cosine_distance(vectors, self._turned(target))
        return parts

    def _turned(self, target: Tensor) -> Tensor:
        """In the student's directions: [..., D] -> [..., D]."""
        return target if self.rotation is None else target @ self.rotation.to(target.device).T


def cosine_distance(student: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cos over rows: student [S, D], target [S, D] -> scalar."""
    return (1 - F.cosine_similarity(student, target, dim=-1)).mean()


def _cosines(vectors: Tensor) -> Tensor:
    """Every row with every row: [S, D] -> [S, S]."""
    unit = F.normalize(vectors, dim=-1)
    return unit @ unit.T


def everywhere(vectors: Tensor) -> Tensor:
    """Vectors of this process, then those of the others, through which no gradient goes: [S, D] -> [processes S, D]."""
    if not torch.distributed.is_initialized():
        return vectors
    gathered: Tensor = all_gather(vectors)
    return gathered.roll(-torch.distributed.get_rank() * len(vectors), 0)


def similarity_divergence(
    student: Tensor,
    target: Tensor,
    temperature: float,
    student_temperature: Tensor | float | None = None,
    *,
    rows: int | None = None,
) -> Tensor:
    """KL(target || student) of the softmax over similarities, mean over the first `rows`, or all: [S, d], [S, D] -> scalar."""
    own = temperature if student_temperature is None else student_temperature
    wanted = _off_diagonal(_cosines(target)[:rows] / temperature)
    return divergence(_off_diagonal(_cosines(student)[:rows] / own), wanted)


def divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || found) of the softmax over scores, mean over rows: [S, R] both -> scalar."""
    return F.kl_div(found.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")


def prefix_divergence(
    student: Tensor, target: Tensor, temperature: float, dims: Sequence[int], *, rows: int | None = None
) -> Tensor:
    """Mean of `similarity_divergence` over prefixes of the student against the whole target: [S, D], [S, D] -> scalar.

    Cosines of a cut vector spread wider than those of the whole, so each prefix gets a temperature wider by the same factor.
    """
    whole = _spread(target)

    def of(cut: Tensor) -> Tensor:
        own = temperature * _spread(cut.detach()) / whole
        return similarity_divergence(cut, target, temperature, own, rows=rows)

    return torch.stack([of(student[:, :d]) for d in dims]).mean()


def _spread(vectors: Tensor) -> Tensor:
    """Standard deviation of the cosines of different rows; never zero, as it divides."""
    return _off_diagonal(_cosines(vectors)).std().clamp_min(1e-3)


def _off_diagonal(rows: Tensor) -> Tensor:
    """[R, S] -> [R, S - 1] without row r's own, the r-th."""
    keep = ~torch.eye(*rows.shape, dtype=torch.bool, device=rows.device)
    return rows[keep].view(len(rows), -1)
