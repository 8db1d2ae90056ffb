"""Packed gradients are padded gradients: ours against native transformers' own class on padded rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import JinaEmbeddingsV3Model

from fivefold.checkpoint import write
from fivefold.train.loop import assemble
from tests import toy


def test_packed_and_padded_gradients_agree(tmp_path: Path) -> None:
    config = toy.config(lora_adaptations=(), task_instructions={}, hidden_dropout_prob=0.0, pooler=False)
    config = replace(config, attention_probs_dropout_prob=0.0)  # ours has none
    encoder = toy.encoder(config)
    write(tmp_path / "native", config, encoder.state_dict(), layout="transformers")
    native = JinaEmbeddingsV3Model.from_pretrained(tmp_path / "native", attn_implementation="eager").train()
    model = assemble(encoder.requires_grad_(True), toy.rust_tokenizer())
    features = model.preprocess([toy.TEXTS[0], "fox", toy.TEXTS[3][:20]])
    weights = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    (model(dict(features))["sentence_embedding"] * weights).sum().backward()

    mask = features["attention_mask"][..., None]
    hidden = native(input_ids=features["input_ids"], attention_mask=features["attention_mask"]).last_hidden_state
    mean = (hidden * mask).sum(1) / mask.sum(1)
    (torch.nn.functional.normalize(mean, dim=-1) * weights).sum().backward()

    theirs = {name: p.grad for name, p in native.named_parameters() if p.grad is not None}
    ours = {name: p.grad for name, p in encoder.named_parameters()}
    for layer in range(2):
        fused = [theirs[f"layers.{layer}.self_attn.{part}_proj.weight"] for part in "qkv"]
        close(ours[f"layers.{layer}.attention.Wqkv.weight"], torch.cat(fused))
        for name in ("mlp.fc1.weight", "mlp.fc2.bias"):
            close(ours[f"layers.{layer}.{name}"], theirs[f"layers.{layer}.{name}"])
    words = theirs["embeddings.word_embeddings.weight"].clone()
    words[config.pad_token_id] = ours["embeddings.word_embeddings.weight"][config.pad_token_id]  # theirs is pinned
    close(ours["embeddings.word_embeddings.weight"], words)


def close(found: torch.Tensor | None, expected: torch.Tensor) -> None:
    assert found is not None and found.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_gradients_do_not_depend_on_the_order_of_a_batch(order: list[int]) -> None:
    texts, found = [toy.TEXTS[0], "fox", toy.TEXTS[3][:20]], []
    for rows in ([0, 1, 2], order):
        encoder = toy.encoder(toy.config(hidden_dropout_prob=0.0)).requires_grad_(True)
        vectors = assemble(encoder, toy.rust_tokenizer(), task="separation")
        out = vectors(vectors.preprocess([texts[i] for i in rows]))["sentence_embedding"]
        (out * torch.tensor(rows)[:, None]).sum().backward()
        found.append(encoder.layers[0].mlp.fc1.lora_B.grad)
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-4)
