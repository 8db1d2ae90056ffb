"""Laws of packing and routing: how texts are grouped never shows in their vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.attention import KERNELS
from fivefold.embedder import Embedder
from fivefold.model import Encoder
from fivefold.packing import pack, plan
from fivefold.pooling import pool
from tests import toy

ATOL = 2e-5
TASKS = (None, *toy.config().lora_adaptations)
mixed = st.lists(st.tuples(st.sampled_from(toy.TEXTS), st.sampled_from(TASKS)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """One toy system for the file; 128 positions so that nothing is cut."""
    return toy.embedder(toy.config(max_position_embeddings=128), max_batch_tokens=150)


@given(pairs=mixed)
@settings(max_examples=12)
def test_alone_equals_in_a_mixed_batch(embedder: Embedder, pairs: list[tuple[str, str | None]]) -> None:
    """Any mix of texts and tasks in one call equals one call for each."""
    together = embedder.encode([text for text, _ in pairs], task=[task for _, task in pairs])
    alone = np.stack([embedder.encode(text, task=task) for text, task in pairs])
    np.testing.assert_allclose(together, alone, atol=ATOL)


def test_order_does_not_matter(embedder: Embedder) -> None:
    """A permutation of the input permutes the output."""
    order = np.random.default_rng(0).permutation(len(toy.TEXTS))
    straight = embedder.encode(toy.TEXTS, task="separation")
    shuffled = embedder.encode([toy.TEXTS[i] for i in order], task="separation")
    np.testing.assert_allclose(shuffled, straight[order], atol=ATOL)


@pytest.mark.parametrize("budget", [1, 30, 64, 10_000])
def test_the_token_budget_does_not_matter(budget: int) -> None:
    """Packs of any size give the same vectors."""
    config = toy.config(max_position_embeddings=128)
    few = toy.embedder(config, max_batch_tokens=budget).encode(toy.TEXTS, task="text-matching")
    np.testing.assert_allclose(few, toy.embedder(config).encode(toy.TEXTS, task="text-matching"), atol=ATOL)


def test_tasks_differ(embedder: Embedder) -> None:
    """The laws above would hold for adapters that do nothing; these do something."""
    vectors = np.stack([embedder.encode(toy.TEXTS[0], task=task) for task in TASKS])
    cosines = vectors @ vectors.T
    assert cosines[~np.eye(len(TASKS), dtype=bool)].max() < 0.98


@pytest.mark.parametrize("task", TASKS)
def test_merged_equals_routed(task: str | None) -> None:
    """One task folded into the weights gives what routing gives."""
    config = toy.config()
    routed, merged = toy.encoder(config), toy.encoder(config)
    merged.merge(task)
    batch = pack([toy.sequence([0, 7, 8, 9, 2], config.task_id(task)), toy.sequence([0, 30, 2], config.task_id(task))])
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    torch.testing.assert_close(merged(batch), routed(batch), atol=5e-5, rtol=1e-5)
    assert routed.pooler is not None and merged.pooler is not None
    torch.testing.assert_close(
        merged.pooler(merged(batch), batch), routed.pooler(routed(batch), batch), atol=5e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kernel", sorted(set(KERNELS) - {"varlen", "reference"}))
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8))
@settings(max_examples=25)
def test_any_kernel_equals_the_reference(kernel: str, lengths: list[int]) -> None:
    """Attention kernels agree with the softmax written out, for any lengths in any order."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(lengths), 3, 8) for _ in range(3))
    batch = pack([toy.sequence([5] * n) for n in lengths])
    torch.testing.assert_close(
        KERNELS[kernel](q, k, v, batch), KERNELS["reference"](q, k, v, batch), atol=2e-6, rtol=1e-5
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_varlen_equals_the_reference() -> None:
    """The GPU kernel, in half precision."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(90, 4, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    batch = pack([toy.sequence([5] * n) for n in (50, 30, 9, 1)]).to(torch.device("cuda"))
    expected = KERNELS["reference"](q.float(), k.float(), v.float(), batch)
    torch.testing.assert_close(KERNELS["varlen"](q, k, v, batch).float(), expected, atol=2e-2, rtol=2e-2)


def test_packed_equals_one_by_one() -> None:
    """Hidden states of a pack are those of its sequences run alone."""
    encoder: Encoder = toy.encoder()
    rows = [toy.sequence([0, *range(5, 5 + n), 2], task) for n, task in ((9, 0), (3, 0), (3, 2), (1, -1))]
    packed = encoder(pack(rows))
    alone = torch.cat([encoder(pack([row])) for row in rows])
    torch.testing.assert_close(packed, alone, atol=ATOL, rtol=1e-5)


def test_every_sequence_is_planned_once() -> None:
    """Packing loses and repeats nothing, and keeps the budget."""
    rng = np.random.default_rng(0)
    rows = [
        toy.sequence([5] * int(n), int(t))
        for n, t in zip(rng.integers(1, 90, 200), rng.integers(-1, 5, 200), strict=True)
    ]
    packs = list(plan(rows, 100))
    assert sorted(i for p in packs for i in p) == list(range(200))
    assert all(sum(len(rows[i]) for i in p) <= 100 for p in packs)


def test_pooling_is_the_mean_of_each_span() -> None:
    """Overlapping, nested and gapped spans."""
    hidden = torch.randn(20, 4, dtype=torch.float64).to(torch.float32)
    spans = torch.tensor([[0, 20], [3, 5], [4, 11], [19, 20]])
    expected = torch.stack([hidden[a:b].mean(0) for a, b in spans.tolist()])
    torch.testing.assert_close(pool(hidden, spans), expected)
