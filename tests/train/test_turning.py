from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fivefold import InputError
from fivefold.compact import INT8
from fivefold.model import Block
from fivefold.packing import TaskSlice
from fivefold.train.turning import (
    faithful_directions,
    principal_directions,
    rotation_to_front,
    turn_block,
    without_least,
)
from tests import toy

WIDTH, FRONT = 32, 4


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spread(across: Tensor, seed: int = 0) -> Tensor:
    """Vectors across a direction, whose own differ in strength and are no axes, around a mean far away."""
    basis = torch.linalg.qr(torch.cat([across[:, None], draw(WIDTH, WIDTH - 1, seed=seed)], 1)).Q[:, 1:]
    return (draw(400, WIDTH - 1, seed=seed + 1) * torch.logspace(0, -1, WIDTH - 1)) @ basis.T + 3


@settings(max_examples=25, deadline=None)
@given(st.integers(1, WIDTH // 2 - 1), st.integers(0, 99))
def test_a_rotation_keeps_cosines_and_puts_directions_first(front: int, seed: int) -> None:
    across, onto = draw(WIDTH, seed=seed + 7), draw(WIDTH, seed=seed + 8)
    onto[:front] = 0.0  # so that the first dimensions are across it
    main = principal_directions(spread(across, seed), front)
    rotation = rotation_to_front(main, across, onto)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(WIDTH), atol=1e-5, rtol=0)
    turned = rotation @ F.normalize(across, dim=0)
    torch.testing.assert_close(turned, F.normalize(onto, dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation @ main, torch.eye(WIDTH, front), atol=1e-4, rtol=0)


def test_it_turns_no_more_than_it_must() -> None:
    last = torch.eye(WIDTH)[-1]
    rotation = rotation_to_front(principal_directions(spread(last), FRONT), last, last)
    assert torch.linalg.matrix_rank(rotation - torch.eye(WIDTH), atol=1e-4) <= 2 * FRONT
    already = draw(400, WIDTH) * torch.tensor([9.0, 7.0, 5.0, 3.0, *[1.0] * (WIDTH - FRONT - 1), 0.0])
    nearly = rotation_to_front(principal_directions(already, FRONT), last, last)
    assert F.cosine_similarity(nearly[FRONT:], torch.eye(WIDTH)[FRONT:]).min() > 0.9


def test_main_directions_hold_most_of_the_variance() -> None:
    vectors = spread(draw(WIDTH, seed=5))
    centred, main = vectors - vectors.mean(0), principal_directions(vectors, FRONT)
    strongest = torch.linalg.svdvals(centred)[:FRONT]
    torch.testing.assert_close((centred @ main).norm(dim=0), strongest, atol=1e-3, rtol=1e-4)


def test_too_few_vectors_or_dimensions() -> None:
    with pytest.raises(InputError, match="do not have 4 main directions"):
        principal_directions(draw(4, WIDTH), 4)
    with pytest.raises(InputError, match="do not have 16 main directions"):
        principal_directions(draw(400, WIDTH), 16)


def test_learned_prefixes_find_what_whole_vectors_find() -> None:
    """Better than where they started, on texts that they did not see; both prefixes, and orthonormal."""
    first = draw(600, WIDTH) * torch.logspace(0, -1, WIDTH)
    second = first + 0.1 * draw(600, WIDTH, seed=1)
    start = torch.eye(WIDTH)[:, -8:]  # where there is least
    learned = faithful_directions(start, [(first[:400], second[:400])], [4, 8], steps=200)
    torch.testing.assert_close(learned.T @ learned, torch.eye(8), atol=1e-5, rtol=0)
    wanted = (F.normalize(first[400:]) @ F.normalize(second[400:]).T).argmax(1)
    for cut in (4, 8):
        missed = [
            (F.normalize(first[400:] @ m[:, :cut]) @ F.normalize(second[400:] @ m[:, :cut]).T).argmax(1) != wanted
            for m in (start, learned)
        ]
        assert missed[1].float().mean() < 0.7 * missed[0].float().mean()


def test_what_others_can_say_is_taken_first_and_said_by_them() -> None:
    """The third input is a sum of two others; the fifth is of no use to anybody, and the last may not be taken."""
    inputs = draw(500, 6)
    inputs[:, 2] = inputs[:, 0] - 2 * inputs[:, 1]
    inputs[:, 5] = inputs[:, 0]
    weight = draw(3, 6, seed=1).double()
    weight[:, 4] = 0.0
    found, taken = without_least(weight, inputs.double().T.cov(), 5, 2)
    assert taken[0] == 4 or taken[1] == 4
    assert not found[:, taken].any()
    torch.testing.assert_close(inputs.double() @ found.T, inputs.double() @ weight.T, atol=1e-4, rtol=0)


def block(units: int) -> Block:
    """One with weights of its norm that differ, a few hidden units that do next to nothing, and adapters."""
    torch.manual_seed(3)
    made = Block(toy.config(hidden_size=WIDTH, intermediate_size=units))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
        made.norm2.weight.copy_(0.23 + 0.03 * torch.randn(WIDTH))
        made.mlp.fc2.weight[:, : 3 * FRONT] *= 1e-3
        assert made.mlp.fc1.lora_B is not None and made.mlp.fc2.lora_A is not None
        made.mlp.fc1.lora_B[:, : 3 * FRONT] = 0.0
        made.mlp.fc2.lora_A[:, :, : 3 * FRONT] = 0.0
    return made


def output(made: Block, residual: Tensor, task: int = -1) -> Tensor:
    """What the block gives for what goes into the norm before its feed-forward part."""
    inputs = made.norm1(residual)
    found: Tensor = made.norm2(inputs + made.mlp(inputs, (TaskSlice(task, 0, len(inputs)),)))
    return found.detach()


@pytest.mark.parametrize("task", [-1, 0, 3])
def test_a_block_turns_what_it_gives(task: int) -> None:
    made, residual = block(64), draw(800, WIDTH, seed=9)
    before, plain = output(made, residual, task), output(made, residual)
    rotation = turn_block(made, principal_directions(plain, FRONT), made.norm1(residual).detach())
    after, wanted = output(made, residual, task), before @ rotation.T
    off = F.cosine_similarity(after, wanted)
    assert off.mean() > 0.999 and off.min() > 0.98
    assert F.cosine_similarity(before, wanted).mean() < 0.9
    energy = (plain @ rotation.T).var(0)
    assert energy[:FRONT].min() > 0.8 * energy[FRONT:].max()


def test_rounding_to_8_bits_hardly_turns_it_away() -> None:
    """The second linear was rounded before, so that its bias could make up for what that costs."""
    made, residual = block(64), draw(800, WIDTH, seed=9)
    before = output(made, residual)
    rotation = turn_block(made, principal_directions(before, FRONT), made.norm1(residual).detach())
    stored = [INT8.decode(*INT8.encode(linear.weight.detach())) for linear in (made.mlp.fc1, made.mlp.fc2)]
    torch.testing.assert_close(stored[1], made.mlp.fc2.weight, atol=1e-6, rtol=0)
    with torch.no_grad():
        made.mlp.fc1.weight.copy_(stored[0])
    assert F.cosine_similarity(output(made, residual), before @ rotation.T).mean() > 0.999


def test_a_block_that_cannot_spare_the_units() -> None:
    made, residual = block(24), draw(500, WIDTH, seed=9)
    with pytest.raises(InputError, match="of 24 hidden units; bring fewer"):
        turn_block(made, principal_directions(output(made, residual), 8), made.norm1(residual).detach())
