"""Tokens of two cuts of one text: which characters they end at, and the means that are compared."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fivefold.train.tokens import UNKNOWN, ends, piece_lengths, token_distance

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "bc", "▁ab", "c", "d"]
LENGTHS = piece_lengths(PIECES, unknown=3, special=(0, 1, 2, 3))


def ids(*rows: str) -> Tensor:
    return torch.tensor([[PIECES.index(piece) for piece in row.split()] for row in rows])


def test_lengths() -> None:
    assert LENGTHS.tolist() == [0, 0, 0, UNKNOWN, 2, 2, 3, 1, 1]


def test_ends_count_characters_of_text_alone() -> None:
    found = ends(ids("<s> ▁a bc d </s> <pad>", "<s> ▁ab c </s> <pad> <pad>"), LENGTHS)
    assert found.tolist() == [[0, 2, 4, 5, 0, 0], [0, 3, 4, 0, 0, 0]]


def test_a_prefix_is_not_text_and_nothing_is_known_after_the_unknown() -> None:
    found = ends(ids("<s> ▁ab ▁a bc </s>", "<s> ▁a <unk> bc </s>"), LENGTHS, torch.tensor([3, 0]))
    assert found.tolist() == [[0, 0, 2, 4, 0], [0, 2, 0, 0, 0]]


def test_means_over_common_spans() -> None:
    """▁a bc d against ▁ab c d: both have an end after 4 characters and after 5."""
    one, other = ids("<s> ▁a bc d </s>"), ids("<s> ▁ab c d </s>")
    student, teacher = torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    pairs = [(student[0, 1:3].mean(0), teacher[0, 1:3].mean(0)), (student[0, 3], teacher[0, 3])]
    expected = torch.stack([1 - torch.cosine_similarity(a, b, dim=0) for a, b in pairs]).mean()
    found = token_distance(student, ends(one, LENGTHS), teacher, ends(other, LENGTHS))
    torch.testing.assert_close(found, expected)


def test_texts_with_nothing_in_common_cost_nothing_and_have_a_gradient() -> None:
    student = torch.randn(1, 3, 8, requires_grad=True)
    empty = ids("<s> </s> <pad>")
    found = token_distance(student, ends(ids("<s> ▁a </s>"), LENGTHS), torch.randn(1, 3, 8), ends(empty, LENGTHS))
    found.backward()  # type: ignore[no-untyped-call]
    assert found == 0 and student.grad is not None and not student.grad.any()


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of piece lengths, cut in two ways; the second may stop early, as a shorter limit would."""
    rows = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    both: tuple[list[list[int]], list[list[int]]] = ([], [])
    for total in rows:
        for side in both:
            inner = sorted(draw(st.sets(st.integers(1, total), max_size=total)) | {total})
            side.append([b - a for a, b in zip([0, *inner], inner, strict=False)])
        if draw(st.booleans()) and len(both[1][-1]) > 1:
            both[1][-1].pop()
    return both


@given(cuts())
def test_equals_the_plain_reading(both: tuple[list[list[int]], list[list[int]]]) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = [torch.randn(len(side), 14, 4, generator=generator) for side in both]
    lengths = torch.arange(14)  # piece n has n characters; 0 is padding
    padded = [torch.tensor([[*row, *[0] * (14 - len(row))] for row in side]) for side in both]
    found = token_distance(hidden[0], ends(padded[0], lengths), hidden[1], ends(padded[1], lengths))
    distances = []
    for row in range(len(both[0])):
        ending = [torch.tensor(side[row]).cumsum(0).tolist() for side in both]
        start = 0
        for stop in sorted(set(ending[0]) & set(ending[1])):
            means = [
                hidden[s][row, [i for i, end in enumerate(ending[s]) if start < end <= stop]].mean(0) for s in (0, 1)
            ]
            distances.append(1 - torch.cosine_similarity(*means, dim=0))
            start = stop
    expected = torch.stack(distances).mean() if distances else torch.tensor(0.0)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
