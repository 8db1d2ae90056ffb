"""Heads and losses against their formulas written out, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fivefold.heads import (
    SEQUENCE_LOSSES,
    MaskedLMHead,
    SequenceClassificationHead,
    SpanHead,
    TokenClassificationHead,
    class_loss,
    problem_type,
    span_loss,
)

D = 6


def filled(module: nn.Module) -> nn.Module:
    """Every parameter random, in float64, without dropout."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double().eval()


def hidden(*shape: int) -> Tensor:
    return torch.randn(*shape, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + layer.bias


def nll(scores: Tensor, label: int) -> Tensor:
    """-log of the softmax at one place, by the definition."""
    return -(scores[label].exp() / scores.exp().sum()).log()


def test_masked_lm_scores() -> None:
    head = filled(MaskedLMHead(D, 11, 1e-5))
    assert isinstance(head, MaskedLMHead)
    x = hidden(2, 3)
    y = linear(x, head.dense)
    y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = linear(y * head.layer_norm.weight + head.layer_norm.bias, head.decoder)
    torch.testing.assert_close(head(x), expected)


def test_sequence_scores() -> None:
    head = filled(SequenceClassificationHead(D, 3, 0.5))
    assert isinstance(head, SequenceClassificationHead)
    first = hidden(4)
    torch.testing.assert_close(head(first), linear(linear(first, head.dense).tanh(), head.out_proj))


def test_token_and_span_scores() -> None:
    token, span = filled(TokenClassificationHead(D, 3, 0.5)), filled(SpanHead(D))
    assert isinstance(token, nn.Linear) and isinstance(span, nn.Linear)
    x = hidden(2, 5)
    torch.testing.assert_close(token(x), linear(x, token))
    torch.testing.assert_close(torch.stack(span(x), -1), linear(x, span))


@pytest.mark.parametrize("head", [SequenceClassificationHead(D, 3, 0.5), TokenClassificationHead(D, 3, 0.5)])
def test_dropout_is_for_training(head: nn.Module) -> None:
    x = hidden(4).float()
    assert torch.equal(head.eval()(x), head(x))
    assert not torch.equal(head.train()(x), head(x))


def test_class_loss_leaves_out_unlabelled_tokens() -> None:
    scores = hidden(2, 3)
    labels = torch.tensor([[1, -100, 4], [-100, 0, 5]])
    kept = [nll(scores[b, i], int(labels[b, i])) for b in range(2) for i in range(3) if labels[b, i] >= 0]
    torch.testing.assert_close(class_loss(scores, labels), torch.stack(kept).mean())


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem"),
    [
        (1, torch.tensor([0.5, 2.0]), "regression"),
        (1, torch.tensor([1, 0]), "regression"),
        (3, torch.tensor([2, 0]), "single_label_classification"),
        (3, torch.tensor([2, 0], dtype=torch.int32), "single_label_classification"),
        (3, torch.tensor([[1.0, 0.0, 1.0]] * 2), "multi_label_classification"),
    ],
)
def test_labels_tell_the_problem(num_labels: int, labels: Tensor, problem: str) -> None:
    assert problem_type(num_labels, labels) == problem


def test_sequence_losses() -> None:
    scores = hidden(2)[:, :3]
    values = torch.tensor([[0.5, 1.0, 2.0], [0.0, -1.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(SEQUENCE_LOSSES["regression"](scores, values), ((scores - values) ** 2).mean())
    one = SEQUENCE_LOSSES["regression"](scores[:, :1], values[:, 0])
    torch.testing.assert_close(one, ((scores[:, 0] - values[:, 0]) ** 2).mean())
    single = SEQUENCE_LOSSES["single_label_classification"](scores, torch.tensor([2, 0]))
    torch.testing.assert_close(single, (nll(scores[0], 2) + nll(scores[1], 0)) / 2)
    yes, each = torch.tensor([[1.0, 0.0, 1.0]] * 2, dtype=torch.float64), scores.sigmoid()
    expected = -(yes * each.log() + (1 - yes) * (1 - each).log()).mean()
    torch.testing.assert_close(SEQUENCE_LOSSES["multi_label_classification"](scores, yes), expected)


def test_span_loss_leaves_out_answers_past_the_end() -> None:
    start, end = hidden(3)[:, :5], hidden(3)[:, 1:]
    positions = torch.tensor([4, 0, 99]), torch.tensor([[-7], [2], [5]])
    expected = (nll(start[0], 4) + nll(start[1], 0)) / 2 + (nll(end[0], 0) + nll(end[1], 2)) / 2
    torch.testing.assert_close(span_loss((start, end), positions), expected / 2)
