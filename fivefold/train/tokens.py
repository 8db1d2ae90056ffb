"""Hidden states of two models token by token, though they cut the same text differently.

Both cut one normalised text, so wherever a piece of one and a piece of the other end at the same character, the tokens up to
there, from the last such place on, stand for the same characters. Their means are what is compared.

Shapes: S texts, L and M tokens of the longest, K spans, D hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

UNKNOWN = -1
"""Length of a piece that stands for any characters."""


def piece_lengths(pieces: Sequence[str], *, unknown: int, special: Collection[int]) -> Tensor:
    """Characters of each piece of a vocabulary, none of a special one: [V]."""
    lengths = torch.tensor([len(piece) for piece in pieces])
    lengths[list(special)] = 0
    lengths[unknown] = UNKNOWN
    return lengths


def ends(ids: Tensor, lengths: Tensor, skipped: Tensor | int = 0) -> Tensor:
    """Characters of the text up to and with each token: ids [S, L], lengths [V], skipped [S] -> [S, L].

    Zero for special tokens, for the first `skipped` characters, and from an unknown piece on, whose characters nobody knows.
    """
    each = lengths.to(ids.device)[ids]
    before = torch.as_tensor(skipped, device=ids.device)
    found = each.cumsum(1) - before.reshape(-1, 1)
    known = (each == UNKNOWN).cumsum(1) == 0
    return torch.where((each > 0) & known, found, 0).clamp_min(0)


def token_distance(student: Tensor, student_ends: Tensor, teacher: Tensor, teacher_ends: Tensor) -> Tensor:
    """Mean of 1 - cos over the spans both have: [S, L, D], [S, L], [S, M, D], [S, M] -> scalar, zero where there are none."""
    most = 1 + int(torch.maximum(student_ends.max(), teacher_ends.max()))
    keys, other = _keys(student_ends, most), _keys(teacher_ends, most)
    common = keys[torch.isin(keys, other)]
    if not len(common):
        return student.sum() * 0.0
    means = _means(student[student_ends > 0], keys, common, most)
    return (1 - F.cosine_similarity(means, _means(teacher[teacher_ends > 0], other, common, most), dim=-1)).mean()


def _keys(found: Tensor, most: int) -> Tensor:
    """One rising number for each end of each text: [S, L] -> [T]."""
    rows = torch.arange(len(found), device=found.device)[:, None] * most
    return (rows + found)[found > 0]


def _means(hidden: Tensor, keys: Tensor, common: Tensor, most: int) -> Tensor:
    """Mean of the tokens of each span: [T, D], [T], [K] -> [K, D]; tokens after a text's last common end are left out."""
    span = torch.searchsorted(common, keys).clamp_max(len(common) - 1)
    inside = (common[span] >= keys) & (common[span] // most == keys // most)
    span, hidden = span[inside], hidden[inside]
    sums = hidden.new_zeros(len(common), hidden.shape[-1]).index_add(0, span, hidden)
    return sums / torch.bincount(span, minlength=len(common))[:, None]
