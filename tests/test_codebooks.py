from __future__ import annotations

import torch

from fivefold.codebooks import GROUP, POINTS, decode, encode


def rows(count: int, columns: int, *, seed: int = 0, decay: float = 0.0) -> torch.Tensor:
    """Normal rows around a mean, in directions of their own of which each next is `decay` smaller."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, columns, generator=generator) * torch.exp(-decay * torch.arange(columns))
    turn = torch.linalg.qr(torch.randn(columns, columns, generator=generator)).Q
    return values @ turn + torch.randn(columns, generator=generator)


def error(matrix: torch.Tensor) -> torch.Tensor:
    """Of each row, as a share of what rows vary."""
    spread = (matrix - matrix.mean(0)).square().sum(1).mean()
    return (decode(*encode(matrix)) - matrix).square().sum(1) / spread


def test_shapes_and_types() -> None:
    codes, books, basis = encode(rows(300, 12))
    assert (codes.shape, codes.dtype) == ((300, 12 // GROUP), torch.uint8)
    assert (books.shape, books.dtype) == ((12 // GROUP, POINTS, GROUP), torch.float16)
    assert (basis.shape, basis.dtype) == ((12, 12), torch.float16)
    torch.testing.assert_close(basis.float() @ basis.float().T, torch.eye(12), atol=2e-3, rtol=0)


def test_a_byte_for_three_numbers_keeps_all_but_a_twentieth_of_what_rows_vary() -> None:
    """8 bits for 3 normal numbers cannot err by less than 2^-(16/3) = .025 of them (rate-distortion)."""
    assert 0.02 < error(rows(20_000, 24)).mean() < 0.05


def test_groups_share_what_differs_between_directions() -> None:
    """Directions that vary e^-4.6 = .01 as much as others cost those no bits."""
    assert error(rows(20_000, 24, decay=0.2)).mean() < 0.6 * error(rows(20_000, 24)).mean()


def test_frequent_rows_come_first_and_err_less() -> None:
    """Half of the rows are of another kind than the rest: the kind that comes first is what the books are for."""
    matrix = torch.cat([rows(500, 12, seed=1), rows(20_000, 12, seed=2)])
    errors, backwards = error(matrix), error(matrix.flip(0)).flip(0)
    assert errors[:500].mean() < 0.8 * backwards[:500].mean()


def test_as_many_kinds_of_rows_as_points_are_kept() -> None:
    kinds = rows(100, 6)
    matrix = kinds[torch.arange(2000) % 100]
    torch.testing.assert_close(decode(*encode(matrix)), matrix, atol=0.01, rtol=0)


def test_the_same_rows_have_the_same_codes() -> None:
    matrix = rows(400, 6)
    assert all(torch.equal(one, other) for one, other in zip(encode(matrix), encode(matrix), strict=True))


def test_a_single_row_and_equal_rows() -> None:
    for matrix in (rows(1, 6), rows(1, 6).expand(5, 6), torch.zeros(3, 6)):
        torch.testing.assert_close(decode(*encode(matrix)), matrix, atol=0.01, rtol=0)
