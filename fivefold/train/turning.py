"""A body's vectors turned so that their first dimensions say most, as Matryoshka prefixes want it.

The vectors of a body that learned from a teacher without prefixes say as little in their first dimensions as in any
others. An orthogonal map R changes no cosine of whole vectors, and the one here takes their main directions to the front. It
joins the last block, y = W n + b of normalised states n, which becomes V m + R b with m = V^-1 R W n:

- m is what the norm gives only if it has mean 0 and length sqrt(D). The states lie across W^-1 1, so R takes that to V^-1 1,
  and V is chosen so that lengths are as even as can be.
- What is added to the residual is turned by the second linear; the residual itself is scaled by the norm before, and turned
  by hidden units, one for a direction, far enough to the right that gelu(t) = t.
- They take the place of the units that the block can best do without, whose part the others take over as well as they can.

So the block is right up to what is left of lengths and units.

Shapes: S texts, T tokens, D hidden, F hidden units, K tasks, d dimensions at the front, r directions that turn.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fivefold.errors import InputError
from fivefold.model import Block

OFFSET = 6.0
"""Standard deviations from zero, where gelu(t) = t to 2e-8."""
ROUNDS = 3
"""Of choosing lengths for a rotation, and a rotation for lengths."""
EVENNESS = 0.01
"""How much the norm's new weights are held to a single number: share of the mean square."""
LEAST = 0.1
"""Of the usual square of a weight."""


def principal_rotation(vectors: Tensor, front: int, across: Tensor, onto: Tensor) -> Tensor:
    """The least turn that takes the `front` main directions of vectors [S, D], which are across a direction [D], to where the
    first dimensions are across another, and the one direction to the other: [D, D].

    Raises:
        InputError: fewer vectors than directions, or too few dimensions to turn into.
    """
    count, width = vectors.shape
    if min(count - 1, width // 2 - 1) < front:
        raise InputError(
            f"{count} vectors of {width} numbers do not have {front} main directions to bring to the front"
        )
    whence, whither = (F.normalize(direction.double(), dim=0) for direction in (across, onto))
    centred = _across((vectors - vectors.mean(0)).double().T, whence)  # [D, S]
    main = torch.linalg.svd(centred, full_matrices=False).U[:, :front]
    left, _, right = torch.linalg.svd(_across(torch.eye(width, front, dtype=main.dtype), whither), full_matrices=False)
    return _least_turn(torch.column_stack([whence, main]), torch.column_stack([whither, left @ right])).float()


def _across(columns: Tensor, direction: Tensor) -> Tensor:
    """What is left of columns [D, S] without their part in a direction [D] of length 1."""
    return columns - torch.outer(direction, direction @ columns)


def _least_turn(source: Tensor, target: Tensor) -> Tensor:
    """The orthogonal map from some orthonormal columns [D, r] to others that moves the rest as little as can be: [D, D]."""
    width, count = source.shape
    basis = torch.linalg.qr(torch.cat([target, source], 1)).Q  # [D, 2r]; all that turns
    inner, wanted = basis.T @ source, basis.T @ target  # [2r, r]
    rest, free = (torch.linalg.qr(part, mode="complete").Q[:, count:] for part in (inner, wanted))  # [2r, r]
    left, _, right = torch.linalg.svd(free.T @ rest)
    turn = wanted @ inner.T + free @ (left @ right) @ rest.T
    eye, inner_eye = (torch.eye(size, dtype=basis.dtype) for size in (width, len(turn)))
    whole: Tensor = eye + basis @ (turn - inner_eye) @ basis.T
    return whole


@torch.no_grad()
def turn_block(block: Block, vectors: Tensor, inputs: Tensor, front: int) -> Tensor:
    """Turn what a block gives, in place -> the rotation [D, D].

    Its adapters turn with it, but for what they did through the units that are taken.

    Args:
        block: the last one.
        vectors: of some texts [S, D], whose main directions are brought to the front.
        inputs: of the feed-forward part, for a sample of tokens [T, D].
        front: dimensions there.

    Raises:
        InputError: see `principal_rotation`; the block has too few hidden units.
    """
    fc1, fc2, norm = block.mlp.fc1, block.mlp.fc2, block.norm2
    assert fc1.bias is not None and fc2.bias is not None and block.skip_norm is None, "v2's blocks are others"
    units = len(fc1.bias)
    hidden = F.gelu(F.linear(inputs, fc1.weight, fc1.bias))  # [T, F]
    states = norm(inputs + F.linear(hidden, fc2.weight, fc2.bias)) - norm.bias  # [T, D]; W n
    rotation, weight = _even_rotation(vectors, front, states, norm.weight)

    scale = norm.weight / weight  # of the residual
    turned = (rotation * norm.weight / weight[:, None]).sub_((rotation @ norm.weight / weight)[:, None] / len(weight))
    left, singular, right = torch.linalg.svd(turned - scale.diag())  # what the residual lacks
    rank = int((singular > 1e-5 * singular[0]).sum())
    if 2 * rank > units:
        raise InputError(f"a turn of {rank} directions takes as many of {units} hidden units; bring fewer to the front")
    write, read = left[:, :rank] * singular[:rank], right[:rank]  # [D, r], [r, D]
    large = (inputs @ read.T).std(0)
    write, read = write * large, read / large[:, None]
    passed = inputs @ read.T  # [T, r]

    seen = torch.cat([hidden, passed], 1).double()
    wanted = torch.cat([turned @ fc2.weight, write], 1).double()  # [D, F + r]
    found, spare = without_least(wanted, seen.T.cov(), units, rank)
    left_out = ((wanted - found) @ seen.mean(0)).float()

    shift = OFFSET - passed.mean(0)  # [r]
    fc1.weight[spare], fc1.bias[spare] = read, shift
    fc1.weight.div_(scale)
    fc2.weight.copy_(found[:, :units])
    fc2.weight[:, spare] = found[:, units:].float()
    fc2.bias.copy_(turned @ fc2.bias + left_out - fc2.weight[:, spare] @ shift)
    block.norm1.weight.mul_(scale)
    block.norm1.bias.mul_(scale)
    norm.weight.copy_(weight)
    norm.bias.copy_(rotation @ norm.bias)
    if fc1.lora_A is not None and fc1.lora_B is not None and fc2.lora_A is not None and fc2.lora_B is not None:
        fc1.lora_A.div_(scale)
        fc1.lora_B[:, spare], fc2.lora_A[:, :, spare] = 0.0, 0.0
        fc2.lora_B.copy_(turned @ fc2.lora_B)
    return rotation


def _even_rotation(vectors: Tensor, front: int, states: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A rotation, and the weights V of the norm after it, for states W n [T, D] and W [D].

    The square of a length is sum_i (R W n)_i^2 / V_i^2, so least squares tell the V_i^-2 that make all of them nearest to D.
    """
    width = len(weight)
    onto = weight.reciprocal()
    for _ in range(ROUNDS):
        squares = (states @ principal_rotation(vectors, front, weight.reciprocal(), onto).T).square().double()
        usual = width / squares.sum(1).mean()
        gram = squares.T @ squares
        ridge = EVENNESS * gram.diagonal().mean() * torch.eye(width, dtype=gram.dtype)
        inverse_squares = torch.linalg.solve(gram + ridge, width * squares.sum(0) + usual * ridge.sum(0))
        onto = inverse_squares.clamp_min(LEAST * usual).sqrt().float()
    rotation = principal_rotation(vectors, front, weight.reciprocal(), onto)
    length = (states @ rotation.T * onto).norm(dim=1).mean()
    return rotation, length / (width**0.5 * onto)


def without_least(weight: Tensor, covariance: Tensor, units: int, count: int) -> tuple[Tensor, list[int]]:
    """Take `count` of the first `units` inputs away from a linear [D, U], one at a time, each time the one that matters least
    once the others have taken over its part as well as they can -> the linear, with zeros there, and which they are.

    With the inputs' covariance C [U, U] and P = C^-1, to lose input j costs |w_j|^2 / P_jj (Hassibi and Stork 1992, "Optimal
    Brain Surgeon").
    """
    ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    weight, inverse = weight.clone(), torch.linalg.inv(covariance + ridge)
    taken: list[int] = []
    for _ in range(count):
        costs = weight.square().sum(0) / inverse.diagonal()
        costs[units:] = costs[taken] = torch.inf
        least = int(costs.argmin())
        share = inverse[least] / inverse[least, least]
        weight -= torch.outer(weight[:, least], share)
        inverse -= torch.outer(inverse[:, least], share)
        weight[:, least] = 0.0
        taken.append(least)
    return weight, taken
