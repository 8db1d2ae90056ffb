"""vectors.py: bit conventions and refusals (the equalities are in laws/)."""

import numpy as np
import pytest

from fivefold.errors import DimensionError, InputError
from fivefold.vectors import PRECISIONS, VectorForm, to_base64


def test_bit_conventions_of_the_hosted_api() -> None:
    """Measured there: ubinary 50, 193, 128, 255 against binary -78, 65, 0, 127; first dimension in the highest bit."""
    bits = np.unpackbits(np.array([50, 193, 128, 255], dtype=np.uint8))
    vector = np.where(bits, 0.5, -0.5).astype(np.float32)
    assert PRECISIONS["ubinary"](vector).tolist() == [50, 193, 128, 255]
    assert PRECISIONS["binary"](vector).tolist() == [-78, 65, 0, 127]


def test_zero_is_not_positive() -> None:
    """A bit is 1 for values above zero only."""
    assert PRECISIONS["ubinary"](np.zeros(8, dtype=np.float32)).tolist() == [0]


def test_int8_keeps_the_angle() -> None:
    """Largest entry 127, cosine to the float vector above 0.9999."""
    vector = np.random.default_rng(0).normal(size=384).astype(np.float32)
    quantised = PRECISIONS["int8"](vector).astype(np.float64)
    assert np.abs(quantised).max() == 127
    cosine = quantised @ vector / np.linalg.norm(quantised) / np.linalg.norm(vector)
    assert cosine > 0.9999


@pytest.mark.parametrize("dims", [0, -1, 385, 1.5, "32", True])
def test_dimensions_the_model_does_not_have(dims: object) -> None:
    """Any whole number from 1 to D, nothing else."""
    with pytest.raises(DimensionError, match="from 1 to 384"):
        VectorForm.checked(dims, 384, True, "float32")  # type: ignore[arg-type]


def test_unknown_precision() -> None:
    """The error lists the known ones."""
    with pytest.raises(InputError, match="float32, int8, uint8, binary, ubinary"):
        VectorForm.checked(None, 8, True, "int4")


def test_base64_is_little_endian_float32() -> None:
    """1.0 is 00 00 80 3f."""
    assert to_base64(np.array([1.0], dtype=np.float32)) == "AACAPw=="
