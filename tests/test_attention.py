"""attention.py: the rotation, and that sequences never see one another."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fivefold.attention import (
    alibi_bias,
    alibi_slopes,
    apply_rope,
    attention,
    grouped_sdpa,
    kernel_for,
    reversed_rows,
    rotary_tables,
    varlen_flash,
)
from fivefold.packing import pack
from tests import toy

ROOT = Path(__file__).parent.parent


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


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (4, [0.25, 0.0625, 0.015625, 0.00390625]),
        (6, [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]),
        (12, [*(2.0**-k for k in range(1, 9)), *(2 ** -(k + 0.5) for k in range(4))]),
    ],
)
def test_slopes_of_alibi(heads: int, slopes: list[float]) -> None:
    """As published, for powers of two and other numbers of heads."""
    np.testing.assert_allclose(alibi_slopes(heads), slopes, rtol=1e-12)


def test_alibi_falls_with_distance_on_both_sides() -> None:
    """Row by row from the last query, out of a table made for longer sequences, and without memory of its own."""
    bias = alibi_bias(4, 9, torch.device("cpu"), torch.float32)
    rows = reversed_rows(bias, 5)
    for i in range(5):
        for j in range(5):
            assert rows[0, 1, 4 - i, j] == -0.0625 * abs(i - j)
    assert rows.untyped_storage().data_ptr() == bias.untyped_storage().data_ptr()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of this process from proc")
def test_no_table_of_all_pairs_is_formed() -> None:
    """2048 tokens and 64 heads would fill 1 GB with biases alone; half of that is never asked for."""
    script = (
        "import torch; from fivefold.attention import attention, alibi_bias; from fivefold.packing import pack;"
        "from tests import toy; import resource;"
        "q = torch.zeros(2048, 64, 8); batch = pack([toy.sequence([5] * 2048)]);"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "attention(q, q, q, batch, bias=alibi_bias(64, 2048, q.device, q.dtype));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500_000  # kB


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


def test_training_in_bfloat16_on_a_cpu_attends_in_float32() -> None:
    """Under autocast, values and gradients are those of float32, cast last."""
    torch.manual_seed(0)
    batch = pack([toy.sequence([5] * n) for n in (7, 3, 3)])
    narrow = [torch.randn(13, 2, 8, dtype=torch.bfloat16).requires_grad_() for _ in range(3)]
    wide = [x.detach().float().requires_grad_() for x in narrow]
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(*narrow, batch)
    expected = attention(*wide, batch)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), rtol=0, atol=0)
    found.float().square().sum().backward()
    expected.bfloat16().float().square().sum().backward()
    for one, other in zip(narrow, wide, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad.bfloat16(), rtol=0, atol=0)


def test_kernel_of_choice() -> None:
    """Flash needs CUDA and half precision, and takes no bias; everything else takes grouped SDPA."""
    assert kernel_for(torch.device("cuda"), torch.bfloat16, biased=True) is grouped_sdpa
    assert kernel_for(torch.device("cuda"), torch.bfloat16) is varlen_flash
    assert kernel_for(torch.device("cuda"), torch.float32) is grouped_sdpa
    assert kernel_for(torch.device("cpu"), torch.bfloat16) is grouped_sdpa
