"""A body's vectors turned so that their first dimensions say most, as Matryoshka prefixes want it.

The vectors of a body that learned from a teacher without prefixes say as little in their first dimensions as in any others. An
orthogonal map changes no cosine of whole vectors, and the one here takes their main directions to the front. It joins the last
block: what is added to the residual is turned by the second linear, and the residual itself by hidden units, two for a number,
since gelu(t) - gelu(-t) = t. They take the place of the units that the block can best do without. The block is right up to what
those did, to the mean of the turned residual, and to its length, all of which training mends.

Shapes: S texts, T tokens, D hidden, F hidden units, d dimensions at the front.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fivefold.errors import InputError
from fivefold.model import Block


def principal_rotation(vectors: Tensor, front: int) -> Tensor:
    """The least turn that takes the `front` main directions of vectors [S, D] to the first dimensions, in their order: [D, D].

    Raises:
        InputError: fewer vectors than directions, or too few dimensions to turn into.
    """
    count, width = vectors.shape
    if min(count - 1, width // 2) < front:
        raise InputError(
            f"{count} vectors of {width} numbers do not have {front} main directions to bring to the front"
        )
    centred = (vectors - vectors.mean(0)).double()
    main = torch.linalg.svd(centred, full_matrices=False).Vh[:front].T  # [D, d]
    first = torch.eye(width, front, dtype=main.dtype)
    basis = torch.linalg.qr(torch.cat([first, main], 1)).Q  # [D, 2d]; all that turns
    inner, wanted = basis.T @ main, basis.T @ first  # [2d, d]
    rest, free = (torch.linalg.qr(part, mode="complete").Q[:, front:] for part in (inner, wanted))  # [2d, d]
    left, _, right = torch.linalg.svd(free.T @ rest)  # the rest as little as can be
    turn = wanted @ inner.T + free @ (left @ right) @ rest.T
    eye = torch.eye(2 * front, dtype=main.dtype)
    whole: Tensor = torch.eye(width, dtype=main.dtype) + basis @ (turn - eye) @ basis.T
    return whole.float()


@torch.no_grad()
def turn_block(block: Block, rotation: Tensor, inputs: Tensor) -> int:
    """Turn what a block gives, in place, with `inputs` [T, D] of its feed-forward part as a sample -> hidden units taken.

    Its norm scales each dimension by a weight of its own, so the turn goes between those: W^-1 R W of what comes before it.
    """
    fc1, fc2, norm = block.mlp.fc1, block.mlp.fc2, block.norm2
    assert fc1.bias is not None and fc2.bias is not None, "only gated blocks go without"
    width = len(rotation)
    centre = torch.eye(width) - 1 / width
    added = (
        norm.weight[:, None].reciprocal() * (rotation - torch.eye(width)) @ (norm.weight[:, None] * centre)
    )  # [D, D]
    rank = int(torch.linalg.matrix_rank(rotation - torch.eye(width), atol=1e-4))
    left, singular, right = torch.linalg.svd(added)
    write, read = left[:, :rank] * singular[:rank], right[:rank]  # [D, r], [r, D]

    hidden = F.gelu(F.linear(inputs, fc1.weight, fc1.bias))  # [T, F]
    order = (hidden.var(0) * fc2.weight.square().sum(0)).argsort()
    if 2 * rank > len(order) // 2:
        raise InputError(
            f"a turn of {rank} directions takes {2 * rank} of {len(order)} hidden units; bring fewer to the front"
        )
    spare, kept = order[: 2 * rank], order[2 * rank :]
    bias = fc2.bias + fc2.weight[:, spare] @ hidden[:, spare].mean(0)
    turned = torch.eye(width) + added
    fc2.weight[:, kept] = turned @ fc2.weight[:, kept]
    fc2.bias.copy_(turned @ bias)
    scale = (inputs @ read.T).std(0).clamp_min(1e-6)  # so that units are as large as others are
    fc1.weight[spare] = torch.cat([read, -read]) / torch.cat([scale, scale])[:, None]
    fc1.bias[spare] = 0.0
    fc2.weight[:, spare] = torch.cat([write * scale, -write * scale], 1)
    norm.bias.copy_(rotation @ norm.bias)
    return 2 * rank
