"""Cut, then normalise, then quantise; base64 equals floats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fivefold.vectors import VectorForm, from_base64, normalize, to_base64
from tests import toy

rows = arrays(np.float32, (3, 16), elements=st.floats(-(2.0**100), 2.0**100, width=32))


@pytest.mark.parametrize("dims", range(1, 33))
def test_cut_then_normalise(dims: int) -> None:
    """Every dimension from 1 to D: the prefix of the full vector, scaled to unit length."""
    embedder = toy.embedder()
    full = embedder.encode(toy.TEXTS, task="separation", normalize=False, max_length=64)
    prefix = full[:, :dims] / np.linalg.norm(full[:, :dims], axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.encode(toy.TEXTS, task="separation", truncate_dim=dims), prefix, atol=2e-6)


@given(rows)
def test_normalised_is_unit_or_zero(vectors: np.ndarray) -> None:
    """Unit length at any scale; zero stays zero; never NaN."""
    lengths = np.linalg.norm(normalize(vectors), axis=1)
    zero = ~vectors.any(axis=1)
    np.testing.assert_allclose(lengths[~zero], 1, atol=1e-5)
    assert not lengths[zero].any()


@given(rows)
def test_base64_is_the_floats(vectors: np.ndarray) -> None:
    """There and back, bit for bit."""
    np.testing.assert_array_equal(from_base64(to_base64(vectors[0])), vectors[0])


@given(arrays(np.float32, (2, 24), elements=st.floats(-1, 1, width=32)))
def test_quantised_forms_agree_with_each_other(vectors: np.ndarray) -> None:
    """uint8 is int8 plus 128; binary is ubinary minus 128; bits are signs."""
    form = {
        p: VectorForm(24, normalize=False, precision=p).apply(vectors) for p in ("int8", "uint8", "binary", "ubinary")
    }
    np.testing.assert_array_equal(form["uint8"].astype(int), form["int8"].astype(int) + 128)
    np.testing.assert_array_equal(form["binary"].astype(int), form["ubinary"].astype(int) - 128)
    np.testing.assert_array_equal(np.unpackbits(form["ubinary"], axis=1).astype(bool), vectors > 0)
