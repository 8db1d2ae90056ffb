"""Laws of packing and routing: how texts are grouped never shows in their vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.attention import KERNELS, alibi_bias, alibi_slopes, attention, biased_sdpa, by_rows, reversed_rows
from fivefold.config import ModelConfig
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


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kernel", sorted(set(KERNELS) - {"varlen", "reference"}))
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8))
@settings(max_examples=25)
def test_any_kernel_equals_the_reference(kernel: str, biased: bool, lengths: list[int]) -> None:
    """Attention kernels agree with the softmax written out, for any lengths in any order, and any bias by distance."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(lengths), 3, 8) for _ in range(3))
    batch = pack([toy.sequence([5] * n) for n in lengths])
    bias = torch.randn(3, 2 * max(lengths) - 1) if biased else None
    torch.testing.assert_close(
        KERNELS[kernel](q, k, v, batch, bias), KERNELS["reference"](q, k, v, batch, bias), atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize("masked", [False, True])
def test_rows_at_a_time_equal_all_at_once(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What GPUs do with a bias, and every device with a mask beside it."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 50, 8) for _ in range(3))
    bias = alibi_bias(3, 60, q.device, q.dtype)
    mask = torch.where(torch.rand(2, 1, 50, 50) < 0.2, -1e9, 0.0) if masked else torch.zeros(1, 1, 1, 50)
    distance = (torch.arange(50)[:, None] - torch.arange(50)).abs()
    scores = q @ k.transpose(-1, -2) * 8**-0.5 - torch.tensor(alibi_slopes(3))[:, None, None] * distance + mask
    monkeypatch.setattr("fivefold.attention.MAX_BIASES", 2 * 3 * 50 * 7)  # 7 or 14 rows at a time
    found = by_rows(q.flip(2), k, v, reversed_rows(bias, 50), mask.flip(2) if masked else None).flip(2)
    torch.testing.assert_close(found, scores.softmax(-1) @ v, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(biased_sdpa(q, k, v, bias, mask if masked else None), found, atol=2e-6, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_bias_on_the_gpu_equals_the_reference(dtype: torch.dtype, tolerance: float) -> None:
    """Lengths that no alignment fits, and one past a block of rows."""
    torch.manual_seed(0)
    lengths = (1001, 530, 530, 9, 1)
    q, k, v = (torch.randn(sum(lengths), 4, 64, device="cuda", dtype=dtype) for _ in range(3))
    batch = pack([toy.sequence([5] * n) for n in lengths]).to(torch.device("cuda"))
    bias = alibi_bias(4, max(lengths), q.device, torch.float32)
    expected = KERNELS["reference"](q.float(), k.float(), v.float(), batch, bias)
    found = attention(q, k, v, batch, bias=bias.to(dtype))
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_varlen_equals_the_reference() -> None:
    """The GPU kernel, in half precision."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(90, 4, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    batch = pack([toy.sequence([5] * n) for n in (50, 30, 9, 1)]).to(torch.device("cuda"))
    expected = KERNELS["reference"](q.float(), k.float(), v.float(), batch)
    torch.testing.assert_close(KERNELS["varlen"](q, k, v, batch).float(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("config", "tasks"),
    [
        (toy.config(), (0, 0, 2, -1)),
        (toy.jinabert_config(), (-1, -1, -1, -1)),
        (toy.jinabert_config(qk_post_norm=True, lora_adaptations=("one",)), (0, 0, 0, -1)),
    ],
    ids=["v3", "JinaBERT", "JinaBERT qk-post-norm"],
)
def test_packed_equals_one_by_one(config: ModelConfig, tasks: tuple[int, ...]) -> None:
    """Hidden states of a pack are those of its sequences run alone."""
    encoder: Encoder = toy.encoder(config)
    rows = [toy.sequence([0, *range(5, 5 + n), 2], task) for n, task in zip((9, 3, 3, 1), tasks, strict=True)]
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
