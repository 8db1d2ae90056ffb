"""A body's vectors turned so that their first dimensions say most, as Matryoshka prefixes want it.

The vectors of a body that learned from a teacher without prefixes say as little in their first dimensions as in any
others. An orthogonal map R changes no cosine of whole vectors, and the one here takes to the front what ranks texts as the
whole does. It joins the last block, y = W n + b of normalised states n, which becomes V m + R b with m = V^-1 R W n:

- m is what the norm gives only if it has mean 0 and length sqrt(D). The states lie across W^-1 1, so R takes that to V^-1 1,
  and V is chosen so that lengths are as even as can be.
- What is added to the residual is turned by the second linear; the residual itself is scaled by the norm before, and turned
  by hidden units, one for a direction, far enough to the right that gelu(t) = t.
- They take the place of the units that the block can best do without, whose part the others take over as well as they can.

So the block is right up to what is left of lengths and units. Those units are far from zero, so what rounding their weights
to 8 bits loses is mostly a constant: the second linear is rounded here, as it will be stored, and its bias makes up for it.

Shapes: S texts, T tokens, D hidden, F hidden units, K tasks, d dimensions at the front, r directions that turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fivefold.compact import INT8
from fivefold.errors import InputError
from fivefold.model import Block
from fivefold.train.losses import HELD_TEMPERATURE, divergence

TURNING = ("norm1", "mlp", "norm2")
"""What of a block `turn_block` changes."""
SPREAD, OFFSET = 0.5, 4.5
"""Standard deviation of a unit that passes a direction on, and where it lies: gelu(t) is t to .004 from 3 on."""
RATE, BATCH = 3e-3, 400
"""Of learning directions."""
ROUNDS = 3
"""Of choosing lengths for a rotation, and a rotation for lengths."""
EVENNESS = 0.01
"""How much the norm's new weights are held to a single number: share of the mean square."""
LEAST = 0.1
"""Of the usual square of a weight."""


def principal_directions(vectors: Tensor, front: int) -> Tensor:
    """The `front` main directions of vectors [S, D], the largest first: [D, d].

    Raises:
        InputError: fewer vectors than directions, or too few dimensions to turn into.
    """
    count, width = vectors.shape
    if min(count - 1, width // 2 - 1) < front:
        raise InputError(
            f"{count} vectors of {width} numbers do not have {front} main directions to bring to the front"
        )
    centred = (vectors - vectors.mean(0)).double()
    main: Tensor = torch.linalg.svd(centred, full_matrices=False).Vh[:front].T.float()
    return main


def faithful_directions(
    start: Tensor, sides: Sequence[tuple[Tensor, Tensor]], dims: Sequence[int], *, steps: int = 300, seed: int = 0
) -> Tensor:
    """Directions [D, d] whose prefixes rank as the whole vectors do, learned from `start` [D, d]: orthonormal.

    What is made small is the divergence of the softmax over cosines of the first `dims` directions from that over all
    cosines, of texts of one side with those of the other, in batches; cosines of a cut vector spread wider, and their
    temperature with them.

    Args:
        start: main directions, for example.
        sides: vectors [S, D] and [S, D] that are compared: queries with passages, sentences with translations.
        dims: prefixes, none longer than d.
        steps: of Adam, its rate falling to zero.
        seed: of the batches.
    """
    pairs = [tuple(F.normalize(side.float(), dim=1) for side in both) for both in sides]
    weight = start.clone().requires_grad_()
    learner = torch.optim.Adam([weight], lr=RATE)
    fading = torch.optim.lr_scheduler.LinearLR(learner, 1.0, 0.0, steps)
    drawing = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        basis = torch.linalg.qr(weight).Q
        losses = []
        for first, second in pairs:
            some = torch.randperm(len(first), generator=drawing)[:BATCH]
            one, other = first[some], second[some]
            losses += [_within(one, other, basis[:, :cut]) for cut in dims]
        learner.zero_grad()
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        learner.step()
        fading.step()
    found: Tensor = torch.linalg.qr(weight.detach()).Q
    return found


def _within(first: Tensor, second: Tensor, basis: Tensor) -> Tensor:
    """The divergence of cosines within a basis [D, d] from the whole ones: [S, D] both -> scalar."""
    whole = first @ second.T
    cut = F.normalize(first @ basis, dim=1) @ F.normalize(second @ basis, dim=1).T
    own = HELD_TEMPERATURE * cut.detach().std().clamp_min(1e-6) / whole.std().clamp_min(1e-6)
    return divergence(cut / own, whole / HELD_TEMPERATURE)


def rotation_to_front(main: Tensor, across: Tensor, onto: Tensor) -> Tensor:
    """The least turn that takes directions [D, d], which are across another [D], to where the first dimensions are across a
    third, and the second direction to the third: [D, D]."""
    width, front = main.shape
    whence, whither = (F.normalize(direction.double(), dim=0) for direction in (across, onto))
    source = _nearest_basis(_across(main.double(), whence))
    target = _nearest_basis(_across(torch.eye(width, front, dtype=source.dtype), whither))
    return _least_turn(torch.column_stack([whence, source]), torch.column_stack([whither, target])).float()


def _nearest_basis(columns: Tensor) -> Tensor:
    """The orthonormal columns that are nearest to these."""
    left, _, right = torch.linalg.svd(columns, full_matrices=False)
    nearest: Tensor = left @ right
    return nearest


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
def turn_block(block: Block, main: Tensor, inputs: Tensor) -> Tensor:
    """Turn what a block gives, in place -> the rotation [D, D].

    Its adapters turn with it, but for what they did through the units that are taken.

    Args:
        block: the last one.
        main: orthonormal directions that are brought to the front [D, d].
        inputs: of the feed-forward part, for a sample of tokens [T, D].

    Raises:
        InputError: the block has too few hidden units.
    """
    fc1, fc2, norm = block.mlp.fc1, block.mlp.fc2, block.norm2
    assert fc1.bias is not None and fc2.bias is not None and block.skip_norm is None, "v2's blocks are others"
    units = len(fc1.bias)
    hidden = F.gelu(F.linear(inputs, fc1.weight, fc1.bias))  # [T, F]
    states = norm(inputs + F.linear(hidden, fc2.weight, fc2.bias)) - norm.bias  # [T, D]; W n
    rotation, weight = _even_rotation(main, states, norm.weight)

    scale = norm.weight / weight  # of the residual
    turned = (rotation * norm.weight / weight[:, None]).sub_((rotation @ norm.weight / weight)[:, None] / len(weight))
    left, singular, right = torch.linalg.svd(turned - scale.diag())  # what the residual lacks
    rank = int((singular > 1e-5 * singular[0]).sum())
    if 2 * rank > units:
        raise InputError(f"a turn of {rank} directions takes as many of {units} hidden units; bring fewer to the front")
    write, read = left[:, :rank] * singular[:rank], right[:rank]  # [D, r], [r, D]
    large = (inputs @ read.T).std(0) / SPREAD
    write, read = write * large, read / large[:, None]
    passed = inputs @ read.T  # [T, r]

    seen = torch.cat([hidden, passed], 1).double()
    wanted = torch.cat([turned @ fc2.weight, write], 1).double()  # [D, F + r]
    found, spare = without_least(wanted, seen.T.cov(), units, rank)
    found[:, spare] = found[:, units:]
    rounded = INT8.decode(*INT8.encode(found[:, :units].float()))
    means = hidden.mean(0)
    means[spare] = OFFSET

    shift = OFFSET - passed.mean(0)
    fc1.weight[spare], fc1.bias[spare] = read, shift
    fc1.weight.div_(scale)
    fc2.weight.copy_(rounded)
    fc2.bias.copy_(turned @ fc2.bias + (wanted @ seen.mean(0)).float() - rounded @ means)
    block.norm1.weight.mul_(scale)
    block.norm1.bias.mul_(scale)
    norm.weight.copy_(weight)
    norm.bias.copy_(rotation @ norm.bias)
    if fc1.lora_A is not None and fc1.lora_B is not None and fc2.lora_A is not None and fc2.lora_B is not None:
        fc1.lora_A.div_(scale)
        fc1.lora_B[:, spare], fc2.lora_A[:, :, spare] = 0.0, 0.0
        fc2.lora_B.copy_(turned @ fc2.lora_B)
    return rotation


def _even_rotation(main: Tensor, states: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A rotation, and the weights V of the norm after it, for states W n [T, D] and W [D].

    The square of a length is sum_i (R W n)_i^2 / V_i^2, so least squares tell the V_i^-2 that make all of them nearest to D.
    """
    width = len(weight)
    onto = weight.reciprocal()
    for _ in range(ROUNDS):
        squares = (states @ rotation_to_front(main, weight.reciprocal(), onto).T).square().double()
        usual = width / squares.sum(1).mean()
        gram = squares.T @ squares
        ridge = EVENNESS * gram.diagonal().mean() * torch.eye(width, dtype=gram.dtype)
        inverse_squares = torch.linalg.solve(gram + ridge, width * squares.sum(0) + usual * ridge.sum(0))
        onto = inverse_squares.clamp_min(LEAST * usual).sqrt().float()
    rotation = rotation_to_front(main, weight.reciprocal(), onto)
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
