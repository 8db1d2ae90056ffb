"""lora.py: the low-rank terms against their formulas, gradients, and fresh adapters."""

import pytest
import torch

from fivefold.lora import LoRAEmbedding, LoRALinear
from fivefold.packing import TaskSlice
from tests import toy

SLICES = (TaskSlice(-1, 0, 2), TaskSlice(0, 2, 3), TaskSlice(2, 3, 7))


def filled(layer: torch.nn.Module) -> torch.nn.Module:
    """The layer with normal random parameters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def test_linear_adds_each_slice_its_own_term() -> None:
    """y = x W^T + b + s (x A^T) B^T on the task's rows, nothing on rows without a task."""
    layer = filled(LoRALinear(5, 6, tasks=3, rank=2, scaling=0.25))
    x = torch.randn(7, 5)
    y = layer(x, SLICES)
    for s in SLICES:
        weight = layer.weight
        if s.task_id >= 0:
            weight = weight + 0.25 * layer.lora_B[s.task_id] @ layer.lora_A[s.task_id]
        torch.testing.assert_close(y[s.start : s.stop], x[s.start : s.stop] @ weight.T + layer.bias)


def test_embedding_adds_each_slice_its_own_term() -> None:
    """Row v gets s A[v] B of its task."""
    layer = filled(LoRAEmbedding(9, 6, tasks=3, rank=2, scaling=0.25))
    ids = torch.tensor([0, 3, 3, 8, 1, 3, 0])
    y = layer(ids, SLICES)
    for s in SLICES:
        table = layer.weight
        if s.task_id >= 0:
            table = table + 0.25 * layer.lora_A[s.task_id] @ layer.lora_B[s.task_id]
        torch.testing.assert_close(y[s.start : s.stop], table[ids[s.start : s.stop]])


@torch.no_grad()
@pytest.mark.parametrize("dim", [16, 384, 1000])
def test_rows_are_the_same_bits_in_any_batch(dim: int) -> None:
    """Alone and among others, also in the place of another row."""
    layer = filled(LoRAEmbedding(50, dim, tasks=2, rank=4, scaling=0.25))
    ids = torch.arange(300) % 50
    together = layer(ids, (TaskSlice(0, 0, 101), TaskSlice(1, 101, 300)))
    for row, task in ((0, 0), (100, 0), (101, 1), (299, 1)):
        assert torch.equal(layer(ids[row : row + 1], (TaskSlice(task, 0, 1),))[0], together[row])


@pytest.mark.parametrize(
    "layer", [LoRALinear(5, 6, tasks=3, rank=2, scaling=0.5), LoRAEmbedding(9, 6, tasks=3, rank=2, scaling=0.5)]
)
def test_gradients_reach_the_tasks_in_the_pack_only(layer: torch.nn.Module) -> None:
    """Training one adapter leaves the others' banks without gradient, and the in-place add is sound under autograd."""
    filled(layer)
    x = torch.randn(7, 5) if isinstance(layer, LoRALinear) else torch.tensor([0, 3, 3, 8, 1, 3, 0])
    layer(x, SLICES).square().sum().backward()
    for bank in (layer.lora_A, layer.lora_B):
        assert bank.grad[0].abs().sum() > 0
        assert bank.grad[1].abs().sum() == 0
        assert bank.grad[2].abs().sum() > 0


def test_gradients_are_those_of_the_merged_weight() -> None:
    """Gradients of A and B against autograd through the dense formula."""
    layer = filled(LoRALinear(5, 6, tasks=1, rank=2, scaling=0.25))
    x = torch.randn(4, 5)
    layer(x, (TaskSlice(0, 0, 4),)).square().sum().backward()
    a, b = (bank.detach()[0].clone().requires_grad_() for bank in (layer.lora_A, layer.lora_B))
    dense = x @ (layer.weight.detach() + 0.25 * b @ a).T + layer.bias.detach()
    dense.square().sum().backward()
    torch.testing.assert_close(layer.lora_A.grad[0], a.grad)
    torch.testing.assert_close(layer.lora_B.grad[0], b.grad)


def test_fresh_adapters_change_nothing() -> None:
    """A newly made model gives every task the body's output."""
    from fivefold.model import Encoder
    from fivefold.packing import pack

    torch.manual_seed(0)
    model = Encoder(toy.config()).eval()
    model.reset_parameters()
    outputs = [model(pack([toy.sequence([0, 8, 9, 2], task)])) for task in (-1, 0, 4)]
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], outputs[2])


def test_nothing_of_vocabulary_size_is_formed() -> None:
    """The profiler sees no allocation as large as the word table in a forward with adapters."""
    from torch.profiler import ProfilerActivity, profile

    from fivefold.packing import pack

    rows, dim = 50_000, 32
    model = toy.encoder(toy.config(vocab_size=rows))
    batch = pack([toy.sequence([0, 8, 9, 2], 1), toy.sequence([0, 49_999, 2], 3)])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen, torch.inference_mode():
        model(batch)
    largest = max(event.self_cpu_memory_usage for event in seen.key_averages())
    assert 0 < largest < rows * dim * 4 / 10
