from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fivefold import InputError
from fivefold.model import Block
from fivefold.train.turning import principal_rotation, turn_block
from tests import toy

WIDTH, FRONT = 32, 4


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spread(seed: int = 0) -> Tensor:
    """Vectors whose directions differ in strength, in no axis's direction, around a mean far away."""
    basis = torch.linalg.qr(draw(WIDTH, WIDTH, seed=seed)).Q
    return (draw(400, WIDTH, seed=seed + 1) * torch.logspace(0, -1, WIDTH)) @ basis.T + 3


@settings(max_examples=25, deadline=None)
@given(st.integers(1, WIDTH // 2), st.integers(0, 99))
def test_a_rotation_keeps_cosines_and_puts_the_main_directions_first(front: int, seed: int) -> None:
    vectors = spread(seed)
    rotation = principal_rotation(vectors, front)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(WIDTH), atol=1e-5, rtol=0)
    turned = (vectors - vectors.mean(0)) @ rotation.T
    energy = turned.var(0)
    strongest = torch.linalg.svdvals(vectors - vectors.mean(0))[:front].square() / (len(vectors) - 1)
    torch.testing.assert_close(energy[:front], strongest, atol=1e-4, rtol=1e-3)


def test_it_turns_no_more_than_it_must() -> None:
    rotation = principal_rotation(spread(), FRONT)
    assert torch.linalg.matrix_rank(rotation - torch.eye(WIDTH), atol=1e-4) <= 2 * FRONT
    already = draw(400, WIDTH) * torch.tensor([9.0, 7.0, 5.0, 3.0, *[1.0] * (WIDTH - FRONT)])
    nearly = principal_rotation(already, FRONT)
    assert F.cosine_similarity(nearly[FRONT:], torch.eye(WIDTH)[FRONT:]).min() > 0.9


def test_too_few_vectors_or_dimensions() -> None:
    with pytest.raises(InputError, match="do not have 4 main directions"):
        principal_rotation(draw(4, WIDTH), 4)
    with pytest.raises(InputError, match="do not have 17 main directions"):
        principal_rotation(spread(), 17)


def block(units: int) -> Block:
    """One with weights of its norm that differ, and a few hidden units that do next to nothing."""
    torch.manual_seed(3)
    made = Block(toy.config(hidden_size=WIDTH, intermediate_size=units, lora_adaptations=(), task_instructions={}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
        made.norm2.weight.copy_(0.23 + 0.02 * torch.randn(WIDTH))
        made.mlp.fc2.weight[:, : 2 * 2 * FRONT] *= 1e-3
    return made


def output(made: Block, inputs: Tensor) -> Tensor:
    """What the block gives for inputs of its feed-forward part."""
    found: Tensor = made.norm2(inputs + made.mlp(inputs, ()))
    return found.detach()


def test_a_block_turns_what_it_gives() -> None:
    made, inputs = block(64), draw(500, WIDTH, seed=9)
    before = output(made, inputs)
    rotation = principal_rotation(before, FRONT)
    assert turn_block(made, rotation, inputs) == 2 * 2 * FRONT
    after, wanted = output(made, inputs), before @ rotation.T
    assert F.cosine_similarity(after, wanted).mean() > 0.97
    assert F.cosine_similarity(before, wanted).mean() < 0.9


def test_a_block_that_cannot_spare_the_units() -> None:
    made, inputs = block(24), draw(500, WIDTH, seed=9)
    with pytest.raises(InputError, match="of 24 hidden units; bring fewer"):
        turn_block(made, principal_rotation(output(made, inputs), 8), inputs)
