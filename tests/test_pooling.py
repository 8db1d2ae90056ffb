import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fivefold.pooling import pool

SPANS = st.lists(st.tuples(st.integers(0, 19), st.integers(1, 20)), min_size=1, max_size=12).map(
    lambda pairs: torch.tensor([(start, min(20, start + size)) for start, size in pairs])
)


@given(SPANS)
def test_every_span_is_the_mean_of_its_tokens(spans: torch.Tensor) -> None:
    """Nested, overlapping, repeated and out of order."""
    hidden = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([hidden[start:stop].mean(0) for start, stop in spans.tolist()])
    torch.testing.assert_close(pool(hidden, spans), expected)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_tiling_spans_give_what_any_spans_give(lengths: list[int]) -> None:
    ends = torch.tensor(lengths).cumsum(0)
    spans = torch.stack([ends - torch.tensor(lengths), ends], 1)
    hidden = torch.randn(int(ends[-1]), 3, generator=torch.Generator().manual_seed(1))
    turned = spans.flip(0)  # no longer tiles in order, so tokens are gathered
    torch.testing.assert_close(pool(hidden, spans), pool(hidden, turned).flip(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_float32_whatever_the_hidden_states_are(dtype: torch.dtype) -> None:
    """2048 times 1.0 + 2^-7 in half precision would stop growing; the mean must not."""
    hidden = torch.full((4096, 2), 1.0 + 2**-7, dtype=dtype)
    vectors = pool(hidden, torch.tensor([[0, 4096]]))
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, hidden[:1].float())
