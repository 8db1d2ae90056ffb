"""Losses against the plain formulas, written with loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from fivefold.train import losses

ROWS, WIDTH = 5, 8


@pytest.fixture
def vectors():
    return torch.randn(2, ROWS, WIDTH, generator=torch.Generator().manual_seed(0))


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def softmax(values):
    weights = [math.exp(v) for v in values]
    return [w / sum(weights) for w in weights]


def test_similarity_divergence_is_the_mean_kl_without_the_diagonal(vectors):
    student, target = vectors
    expected = 0.0
    for i in range(ROWS):
        others = [j for j in range(ROWS) if j != i]
        p = softmax([cosine(target[i], target[j]) / 0.5 for j in others])
        q = softmax([cosine(student[i], student[j]) / 0.5 for j in others])
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / ROWS
    assert losses.similarity_divergence(student, target, 0.5).item() == pytest.approx(expected, abs=1e-5)


def test_divergences_of_a_perfect_student_are_zero(vectors):
    target = vectors[1]
    assert losses.similarity_divergence(3 * target, target, 0.02).item() == pytest.approx(0, abs=1e-5)
    assert losses.match_divergence(target, target, target, target, 0.02).item() == pytest.approx(0, abs=1e-5)
    assert losses.cosine_distance(2 * target, target).item() == pytest.approx(0, abs=1e-6)
    assert losses.prefix_divergence(target, target, 0.02, (WIDTH,)).item() == pytest.approx(0, abs=1e-5)


def test_info_nce_contrasts_both_ways(vectors):
    a, b = vectors
    expected = 0.0
    for i in range(ROWS):
        forth = softmax([cosine(a[i], b[j]) / 0.1 for j in range(ROWS)])
        back = softmax([cosine(a[j], b[i]) / 0.1 for j in range(ROWS)])
        expected -= (math.log(forth[i]) + math.log(back[i])) / 2 / ROWS
    assert losses.info_nce(a, b, 0.1).item() == pytest.approx(expected, abs=1e-4)


def test_info_nce_leaves_out_what_is_no_negative(vectors):
    a, b = vectors
    everything = torch.ones(ROWS, ROWS, dtype=torch.bool)
    assert losses.info_nce(a, b, 0.1, everything).item() == pytest.approx(0, abs=1e-6)


def test_supervised_contrast_against_its_formula(vectors):
    rows, labels = vectors[0], [0, 1, 0, 1, 2]
    per_row = []
    for i in range(ROWS):
        others = [j for j in range(ROWS) if j != i]
        share = dict(zip(others, softmax([cosine(rows[i], rows[j]) / 0.5 for j in others]), strict=True))
        same = [j for j in others if labels[j] == labels[i]]
        if same:
            per_row.append(-sum(math.log(share[j]) for j in same) / len(same))
    found = losses.supervised_contrast(rows, torch.tensor(labels), 0.5)
    assert found.item() == pytest.approx(sum(per_row) / len(per_row), abs=1e-5)


def test_supervised_contrast_without_any_pair_is_zero_with_a_gradient():
    rows = torch.randn(3, 4, requires_grad=True)
    losses.supervised_contrast(rows, torch.arange(3), 0.5).backward()
    assert rows.grad is not None and not rows.grad.any()


def test_cosent_against_its_formula(vectors):
    a, b = vectors
    scores = [3.0, 1.0, 1.0, 5.0, 0.0]
    cosines = [cosine(x, y) for x, y in zip(a, b, strict=True)]
    total = 1.0
    for i in range(ROWS):
        for j in range(ROWS):
            if scores[i] > scores[j]:
                total += math.exp((cosines[j] - cosines[i]) / 0.5)
    assert losses.cosent(a, b, torch.tensor(scores), 0.5).item() == pytest.approx(math.log(total), abs=1e-5)


def test_over_prefixes_is_the_mean_over_cut_vectors(vectors):
    found = losses.over_prefixes(lambda x: F.normalize(x, dim=-1).sum(), vectors[0], (2, 8))
    expected = (F.normalize(vectors[0][:, :2], dim=-1).sum() + F.normalize(vectors[0], dim=-1).sum()) / 2
    torch.testing.assert_close(found, expected)
