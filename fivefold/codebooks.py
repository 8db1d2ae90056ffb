"""Product quantization: a row is cut into groups of three coordinates, and each group is the nearest of 256 points.

One byte a group is 2.7 bits a number, where blocks of 4 bits take 4.5. Before the cut all rows turn into their main directions,
dealt so that every group varies as much as any other (Ge et al. 2013, Optimized Product Quantization, its parametric form; the
cut and its books are Jégou et al. 2011). Rows come as a vocabulary lists its pieces, the frequent first, so a row at rank r
counts r^-1/2: what most texts are made of errs least.

Shapes: O rows, I columns, G = I / 3 groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 3
POINTS = 256
"""Of a group: what a byte can tell apart."""
SAMPLE = 65_536
"""Rows that a book is learned from, drawn by their weight; of a small table as many as it has, four times."""
ROUNDS = 12
DECODED_ROWS = 4096
"""Rows that are in float32 twice at a time."""
ASSIGNED_ROWS = 65_536


@torch.no_grad()
def encode(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float [O, I] -> codes uint8 [O, G], points float16 [G, 256, 3], basis float16 [I, I] by groups."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.arange(1, len(rows) + 1).float().rsqrt()
    weights /= weights.sum()
    mean = weights @ rows
    centred = rows - mean
    values, vectors = torch.linalg.eigh((centred * weights[:, None]).T @ centred)
    basis = vectors[:, _dealt(values)].T.contiguous()
    turned = centred @ basis.T
    count = max(POINTS, min(SAMPLE, 4 * len(rows)))
    drawn = torch.multinomial(weights, count, replacement=True, generator=generator)
    codes, books = [], []
    for group, shift in zip(turned.split(GROUP, dim=1), (mean @ basis.T).split(GROUP), strict=True):
        points = _points(group[drawn], generator)
        books.append((points + shift).half())
        codes.append(_nearest(group + shift, books[-1].float()).to(torch.uint8))
    return torch.stack(codes, dim=1), torch.stack(books), basis.half()


def decode(codes: Tensor, books: Tensor, basis: Tensor) -> Tensor:
    """-> float32 [O, I]."""
    points, turn = books.float().flatten(0, 1), basis.float()
    first = torch.arange(len(books), dtype=torch.int32) * POINTS
    rows = torch.empty(len(codes), len(turn))
    for start in range(0, len(codes), DECODED_ROWS):
        some = slice(start, start + DECODED_ROWS)
        found = points.index_select(0, (codes[some] + first).flatten())  # [o G, 3]
        rows[some] = found.view(-1, len(turn)) @ turn
    return rows


def _dealt(values: Tensor) -> Tensor:
    """Directions in the order of their groups, whose products of variances are alike: [I] rising -> places [I].

    From the largest on, each goes to the group with room whose product is smallest so far.
    """
    logs = values.clamp_min(torch.finfo(values.dtype).tiny).log()
    groups: list[list[int]] = [[] for _ in range(len(values) // GROUP)]
    totals = torch.full((len(groups),), -torch.inf)
    for place in range(len(values) - 1, -1, -1):
        best = int(totals.argmin())
        totals[best] = logs[place] + (totals[best] if groups[best] else 0)
        groups[best].append(place)
        if len(groups[best]) == GROUP:
            totals[best] = torch.inf
    return torch.tensor([place for group in groups for place in group])


def _points(sample: Tensor, generator: torch.Generator) -> Tensor:
    """k-means: [S, 3] -> [256, 3]; a point that nothing is near moves to a row of the sample."""
    points = sample[:POINTS].clone()
    for _ in range(ROUNDS):
        near = _nearest(sample, points)
        sums = torch.zeros_like(points).index_add_(0, near, sample)
        counts = torch.bincount(near, minlength=POINTS)[:, None]
        anew = sample[torch.randint(len(sample), (POINTS,), generator=generator)]
        points = torch.where(counts > 0, sums / counts.clamp_min(1), anew)
    return points


def _nearest(rows: Tensor, points: Tensor) -> Tensor:
    """Place of the nearest point: [O, 3], [256, 3] -> [O]."""
    half = points.square().sum(1) / 2  # |x - p|^2 is least where x p - |p|^2 / 2 is largest
    return torch.cat([(some @ points.T - half).argmax(1) for some in torch.split(rows, ASSIGNED_ROWS)])
