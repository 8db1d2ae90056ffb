import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fivefold.compact import BASIS, BOOKS, CODEBOOKS, FORMS, INT8, SCALE, Compact, form_of

MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 40)),
    elements=st.floats(-1000, 1000, width=32),
)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20)  # a book is learned for each
@given(rows=st.integers(1, 5), blocks=st.integers(1, 3))
def test_codes_have_the_announced_shapes_and_types(form: Compact, rows: int, blocks: int) -> None:
    matrix = torch.randn(rows, blocks * form.per_code)
    parts = form.encode(matrix)
    assert tuple(part.shape for part in parts) == form.shapes(tuple(matrix.shape))
    assert len(parts) == 1 + len(form.endings)
    assert parts[0].dtype == {"I8": torch.int8, "U8": torch.uint8}[form.dtype]
    assert parts[0].numel() * form.per_code == matrix.numel()
    assert form.decode(*parts).shape == matrix.shape


@pytest.mark.parametrize(("beside", "form"), [([SCALE], INT8), ([BOOKS, BASIS], CODEBOOKS), ([], None)])
def test_a_form_is_known_by_what_lies_beside_the_codes(beside: list[str], form: Compact | None) -> None:
    assert form_of("w", ["w", "other_scale", *("w" + ending for ending in beside)]) is form


@pytest.mark.parametrize("form", FORMS)
def test_some_rows_are_those_of_the_whole(form: Compact) -> None:
    parts = form.encode(torch.randn(7, 12))
    torch.testing.assert_close(form.rows(parts, slice(2, 5)), form.decode(*parts)[2:5], rtol=1e-6, atol=1e-6)


@given(MATRICES)
def test_int8_errs_by_half_a_step_of_its_row(values: np.ndarray) -> None:
    matrix = torch.from_numpy(values)
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    tiny = torch.finfo(torch.float32).tiny  # below it float32 itself is coarse
    assert ((INT8.decode(*INT8.encode(matrix)) - matrix).abs() <= step * 0.501 + tiny).all()


@pytest.mark.parametrize("form", FORMS)
def test_zeros_stay_zero(form: Compact) -> None:
    matrix = torch.zeros(2, 30)
    assert torch.equal(form.decode(*form.encode(matrix)), matrix)
