"""attention.py: the rotation, and that sequences never see one another."""

import numpy as np
import pytest
import torch

from fivefold.attention import apply_rope, attention, grouped_sdpa, kernel_for, rotary_tables, varlen_flash
from fivefold.packing import pack
from tests import toy


def test_frequencies_of_the_release() -> None:
    """inv_freq at base 20000 for 64-wide heads, read off the angles at position 1."""
    cos, sin = rotary_tables(torch.tensor([1]), 64, 20000.0, torch.float32)
    angles = torch.atan2(sin, cos)[0, 0]
    np.testing.assert_allclose(angles[[0, 1, 16, 31]], [1.0, 0.73382552, 0.00707107, 6.8136087e-05], rtol=1e-5)


def test_rotation_is_half_split() -> None:
    """Dimension j turns with j + H/2, by hand at one position."""
    x = torch.arange(8.0).view(1, 1, 8)
    position = torch.tensor([3])
    turned = apply_rope(x, *rotary_tables(position, 8, 100.0, torch.float32))[0, 0]
    for j in range(4):
        angle = 3 * 100.0 ** (-2 * j / 8)
        assert turned[j] == pytest.approx(float(j * np.cos(angle) - (j + 4) * np.sin(angle)), abs=1e-5)
        assert turned[j + 4] == pytest.approx(float((j + 4) * np.cos(angle) + j * np.sin(angle)), abs=1e-5)


def test_scores_depend_on_distance_only() -> None:
    """The law that rotary positions exist for."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def score(i: int, j: int) -> float:
        turned = [
            apply_rope(x, *rotary_tables(torch.tensor([p]), 16, 20000.0, torch.float32)) for x, p in ((q, i), (k, j))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(5, 2) == pytest.approx(score(1005, 1002), abs=1e-3)
    assert score(5, 2) != pytest.approx(score(5, 4), abs=1e-3)


def test_a_sequence_never_sees_its_neighbours() -> None:
    """Changing one sequence changes its own output and nothing else."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(12, 2, 8) for _ in range(3))
    batch = pack([toy.sequence([5] * 4) for _ in range(3)])
    before = attention(q, k, v, batch)
    for x in (q, k, v):
        x[4:8] += 1
    after = attention(q, k, v, batch)
    torch.testing.assert_close(before[:4], after[:4])
    torch.testing.assert_close(before[8:], after[8:])
    assert not torch.allclose(before[4:8], after[4:8])


def test_kernel_of_choice() -> None:
    """Flash needs CUDA and half precision; everything else takes grouped SDPA."""
    assert kernel_for(torch.device("cuda"), torch.bfloat16) is varlen_flash
    assert kernel_for(torch.device("cuda"), torch.float32) is grouped_sdpa
    assert kernel_for(torch.device("cpu"), torch.bfloat16) is grouped_sdpa
