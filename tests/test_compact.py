import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fivefold.compact import BLOCK, BY_DTYPE, INT4, INT8

MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 3).map(lambda n: n * BLOCK)),
    elements=st.floats(-1000, 1000, width=32),
)


@given(MATRICES)
def test_codes_have_the_announced_shapes_and_types(values: np.ndarray) -> None:
    matrix = torch.from_numpy(values)
    for dtype, form in BY_DTYPE.items():
        codes, scale = form.encode(matrix)
        assert (codes.shape, scale.shape) == form.shapes(tuple(matrix.shape))
        assert codes.dtype == {"I8": torch.int8, "U8": torch.uint8}[dtype]
        assert form.decode(codes, scale).shape == matrix.shape


@given(MATRICES)
def test_int8_errs_by_half_a_step_of_its_row(values: np.ndarray) -> None:
    matrix = torch.from_numpy(values)
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    tiny = torch.finfo(torch.float32).tiny  # below it float32 itself is coarse
    assert ((INT8.decode(*INT8.encode(matrix)) - matrix).abs() <= step * 0.501 + tiny).all()


@given(MATRICES)
def test_int4_errs_by_a_step_of_its_block(values: np.ndarray) -> None:
    """Half a step, but up to a whole one at the end of the range that has seven codes, and what float16 rounds away."""
    matrix = torch.from_numpy(values)
    blocks = matrix.view(len(matrix), -1, BLOCK)
    step = blocks.abs().amax(dim=2, keepdim=True) / 8
    error = (INT4.decode(*INT4.encode(matrix)).view_as(blocks) - blocks).abs()
    assert (error <= step * 1.01 + 1e-6).all()


@given(hnp.arrays(np.int8, (3, 2, BLOCK), elements=st.integers(-8, 7)), st.floats(2**-10, 128, width=16))
def test_int4_blocks_are_stored_again_without_loss(codes: np.ndarray, scale: float) -> None:
    codes[..., 0] = -8  # as the writer of such blocks leaves them: the largest entry is -8 steps
    matrix = (torch.from_numpy(codes).float() * scale).flatten(1)
    assert torch.equal(INT4.decode(*INT4.encode(matrix)), matrix)


def test_int4_bytes_hold_columns_sixteen_apart() -> None:
    matrix = torch.zeros(1, BLOCK)
    matrix[0, 0], matrix[0, 16], matrix[0, 31] = -8.0, 7.0, 1.0
    codes, scale = INT4.encode(matrix)
    assert scale.tolist() == [[1.0]] and scale.dtype == torch.float16
    assert codes[0, 0] == 0 | 15 << 4 and codes[0, 15] == 8 | 9 << 4


@pytest.mark.parametrize("form", [INT8, INT4])
def test_zeros_stay_zero(form) -> None:
    matrix = torch.zeros(2, BLOCK)
    assert torch.equal(form.decode(*form.encode(matrix)), matrix)
