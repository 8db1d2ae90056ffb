"""Losses against the plain formulas, written with loops."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.train import losses

ROWS, WIDTH = 5, 8


class Given(nn.Module):
    """A model whose features are its vectors."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"sentence_embedding": features["vectors"]}

    def get_embedding_dimension(self) -> int:
        return WIDTH


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def vectors() -> Tensor:
    return draw(2, ROWS, WIDTH)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def softmax(values: list[float]) -> list[float]:
    weights = [math.exp(v) for v in values]
    return [w / sum(weights) for w in weights]


def columns(*vectors: Tensor) -> list[dict[str, Tensor]]:
    return [{"vectors": column} for column in vectors]


@pytest.mark.parametrize("negatives", [0, 3])
def test_contrast_is_the_papers_with_all_rows_negatives(negatives: int) -> None:
    """Table of formulas of the paper on v3: from query to passage over all passages and negatives, back over queries."""
    q, p, *n = draw(2 + negatives, ROWS, WIDTH)
    expected = 0.0
    for i in range(ROWS):
        others = [cosine(q[i], p[k]) / 0.1 for k in range(ROWS)]
        others += [cosine(q[i], negative[k]) / 0.1 for negative in n for k in range(ROWS)]
        expected -= math.log(softmax(others)[i]) / ROWS
        expected -= math.log(softmax([cosine(p[i], q[k]) / 0.1 for k in range(ROWS)])[i]) / ROWS
    found = losses.contrast(Given(), 0.1, ())(columns(q, p, *n), None)
    assert 2 * found.item() == pytest.approx(expected, abs=1e-4)  # the library takes the mean of the two directions


def test_ordered_is_cosent(vectors: Tensor) -> None:
    a, b = vectors
    scores = [3.0, 1.0, 1.0, 5.0, 0.0]
    cosines = [cosine(x, y) for x, y in zip(a, b, strict=True)]
    pairs = [(i, j) for i in range(ROWS) for j in range(ROWS) if scores[i] > scores[j]]
    total = 1.0 + sum(math.exp((cosines[j] - cosines[i]) / 0.5) for i, j in pairs)
    found = losses.ordered(Given(), 0.5, ())(columns(a, b), torch.tensor(scores))
    library_adds_rows_of_its_own = abs(found.item() - math.log(total))
    assert library_adds_rows_of_its_own < 1e-4


def test_separated_is_cosent_over_every_pair_of_texts(vectors: Tensor) -> None:
    rows, labels = vectors[0], [0, 1, 0, 1, 2]
    pairs = [(i, j) for i in range(ROWS) for j in range(i)]
    alike = [cosine(rows[i], rows[j]) for i, j in pairs if labels[i] == labels[j]]
    apart = [cosine(rows[i], rows[j]) for i, j in pairs if labels[i] != labels[j]]
    total = 1.0 + sum(math.exp((c - s) / 0.5) for c in apart for s in alike)
    found = losses.separated(Given(), 0.5, ())(columns(rows), torch.tensor(labels))
    assert found.item() == pytest.approx(math.log(total), abs=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1]])
def test_labels_with_nothing_to_compare_are_zero_with_a_gradient(labels: list[int]) -> None:
    rows = torch.randn(3, 4, requires_grad=True)
    loss = losses.label_cosent(rows, torch.tensor(labels), 0.5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0 and rows.grad is not None and not rows.grad.any()


def test_prefixes_weigh_the_same(vectors: Tensor) -> None:
    a, b = vectors
    both = losses.contrast(Given(), 0.1, (4, WIDTH))(columns(a, b), None)
    apart = [losses.contrast(Given(), 0.1, ())(columns(a[:, :d], b[:, :d]), None) for d in (4, WIDTH)]
    torch.testing.assert_close(both, torch.stack(apart).mean())


def test_similarity_divergence_is_the_mean_kl_without_the_diagonal(vectors: Tensor) -> None:
    student, target = vectors
    expected = 0.0
    for i in range(ROWS):
        others = [j for j in range(ROWS) if j != i]
        p = softmax([cosine(target[i], target[j]) / 0.5 for j in others])
        q = softmax([cosine(student[i], student[j]) / 0.5 for j in others])
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / ROWS
    assert losses.similarity_divergence(student, target, 0.5).item() == pytest.approx(expected, abs=1e-5)


def test_rows_of_the_divergence_are_compared_with_all(vectors: Tensor) -> None:
    student, target = vectors
    first = losses.similarity_divergence(student, target, 0.5, rows=2)
    back = [2, 3, 4, 0, 1]
    last = losses.similarity_divergence(student[back], target[back], 0.5, rows=3)
    torch.testing.assert_close(2 * first + 3 * last, 5 * losses.similarity_divergence(student, target, 0.5))


def test_divergences_of_a_perfect_student_are_zero(vectors: Tensor) -> None:
    target = vectors[1]
    assert losses.similarity_divergence(3 * target, target, 0.02).item() == pytest.approx(0, abs=1e-5)
    assert losses.cosine_distance(2 * target, target).item() == pytest.approx(0, abs=1e-6)
    assert losses.prefix_divergence(target, target, 0.02, (WIDTH,)).item() == pytest.approx(0, abs=1e-5)


class Fixed(nn.Module):
    """A teacher that gives what it is asked with."""

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return F.normalize(features["vectors"], dim=-1)


def test_distillation_by_its_parts_and_without_a_distance_to_another_width(vectors: Tensor) -> None:
    student, target = vectors
    loss = losses.Distillation(Given(), Fixed(), (4,))
    parts = loss(columns(student, target))
    assert parts["distance"].item() == pytest.approx(10 * losses.cosine_distance(student, target).item(), abs=1e-5)
    assert loss(columns(student, target[:, :6])).keys() == {"divergence", "prefixes"}


def test_a_turned_student_is_as_far_from_its_teacher_as_before(vectors: Tensor) -> None:
    student, target = vectors
    rotation = torch.linalg.qr(draw(WIDTH, WIDTH)).Q
    plain = losses.Distillation(Given(), Fixed(), ())(columns(student, target))
    turned = losses.Distillation(Given(), Fixed(), (), rotation=rotation)(columns(student @ rotation.T, target))
    assert plain["distance"].item() == pytest.approx(turned["distance"].item(), abs=1e-5)
    assert plain["divergence"].item() == pytest.approx(turned["divergence"].item(), abs=1e-4)


EVERYWHERE = """
import sys
import torch
from fivefold.train.losses import everywhere
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
mine = torch.full((2, 1), float(rank), requires_grad=True)
found = everywhere(mine)
found.sum().backward()
sys.stdout.write(f"{rank}: {found.flatten().tolist()} {mine.grad.flatten().tolist()}\\n")
torch.distributed.destroy_process_group()
"""


def test_vectors_of_other_processes_come_after_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text(EVERYWHERE)
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*two, str(tmp_path / "rows.py")], capture_output=True, text=True, timeout=120)
    found = sorted(done.stdout.splitlines())
    assert found == ["0: [0.0, 0.0, 1.0, 1.0] [1.0, 1.0]", "1: [1.0, 1.0, 0.0, 0.0] [1.0, 1.0]"], done.stderr


@pytest.mark.parametrize("dims", [(), (WIDTH, 4)])
def test_what_is_held_is_the_loss_beside_the_divergence_of_all_columns(vectors: Tensor, dims: tuple[int, ...]) -> None:
    model, (queries, passages) = Given(), vectors
    own, theirs = columns(queries, passages), columns(passages, queries)
    contrast = losses.contrast(model, 0.05, dims)
    held = losses.Held(model, contrast, Fixed(), dims, 0.5)
    parts = held([*own, *theirs])
    student, target = torch.cat([queries, passages]), torch.cat([passages, queries])
    expected = losses.similarity_divergence(student, target, 0.02)
    if dims:
        expected = expected + 0.3 * losses.prefix_divergence(student, target, 0.02, dims)
    torch.testing.assert_close(parts["held"], 0.5 * expected)
    torch.testing.assert_close(parts["task"], contrast(columns(queries, passages), None))
    if not dims:  # a prefix is never the whole
        assert held([*own, *columns(queries, passages)])["held"].item() == pytest.approx(0, abs=1e-5)
