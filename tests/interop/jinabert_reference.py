"""JinaBERT written out once more, in the plainest way: padded rows, whole tables, one function for each head.

`t` is a state dict by published names, so nothing here is shared with the code under test.

Shapes: B rows, L tokens of a row, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]
SLOPES = {4: [0.25, 0.0625, 0.015625, 0.00390625], 6: [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]}
ACTS = {"geglu": F.gelu, "reglu": F.relu}


@dataclass(frozen=True)
class Inputs:
    ids: Tensor  # [B, L]
    types: Tensor  # [B, L]
    mask: Tensor  # [B, L]


def linear(t: Tensors, name: str, x: Tensor) -> Tensor:
    return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))


def norm(t: Tensors, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], 1e-12)


def attention(t: Tensors, name: str, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, L, D] and what is added to scores [B, N, L, L] -> mixed [B, L, D], probabilities."""
    q, k, v = (linear(t, f"{name}.{part}", x) for part in ("query", "key", "value"))
    if f"{name}.layer_norm_q.weight" in t:
        q, k = norm(t, f"{name}.layer_norm_q", q), norm(t, f"{name}.layer_norm_k", k)
    q, k, v = (part.view(*x.shape[:2], added.shape[1], -1).transpose(1, 2) for part in (q, k, v))
    probabilities = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + added).softmax(-1)
    return (probabilities @ v).transpose(1, 2).flatten(2), probabilities


def layer(t: Tensors, name: str, x: Tensor, added: Tensor, act: str) -> tuple[Tensor, Tensor]:
    mixed, probabilities = attention(t, f"{name}.attention.self", x, added)
    a = norm(t, f"{name}.attention.output.LayerNorm", linear(t, f"{name}.attention.output.dense", mixed) + x)
    if f"{name}.layer_norm_1.weight" not in t:
        first, second = linear(t, f"{name}.mlp.gated_layers", a).chunk(2, -1)
        return norm(
            t, f"{name}.mlp.layernorm", linear(t, f"{name}.mlp.wo", ACTS[act](first) * second) + a
        ), probabilities
    r = norm(t, f"{name}.layer_norm_1", x + a)
    up, gate = linear(t, f"{name}.mlp.up_gated_layer", r).chunk(2, -1)
    return norm(t, f"{name}.layer_norm_2", r + linear(t, f"{name}.mlp.down_layer", up * ACTS[act](gate))), probabilities


def body(
    t: Tensors, inputs: Inputs, *, heads: int, layers: int, act: str = "geglu", causal: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Embeddings and each layer's states, and each layer's probabilities."""
    length = inputs.ids.shape[1]
    at = torch.arange(length)
    bias = -torch.tensor(SLOPES[heads])[:, None, None] * (at[:, None] - at).abs()
    hidden_keys = (inputs.mask == 0)[:, None, None].expand(-1, 1, length, -1)
    if causal:
        hidden_keys = hidden_keys | (at > at[:, None])
    added = bias + hidden_keys * torch.finfo(torch.float32).min
    x = t["embeddings.word_embeddings.weight"][inputs.ids] + t["embeddings.token_type_embeddings.weight"][inputs.types]
    states, all_probabilities = [norm(t, "embeddings.LayerNorm", x)], []
    for n in range(layers):
        y, probabilities = layer(t, f"encoder.layer.{n}", states[-1], added, act)
        states.append(y)
        all_probabilities.append(probabilities)
    return states, all_probabilities


def pooled(t: Tensors, hidden: Tensor) -> Tensor:
    return linear(t, "pooler.dense", hidden[:, 0]).tanh()


def predictions(t: Tensors, hidden: Tensor) -> Tensor:
    """The masked LM head, its decoder the word table."""
    x = F.gelu(linear(t, "cls.predictions.transform.dense", hidden))
    x = norm(t, "cls.predictions.transform.LayerNorm", x)
    return x @ t["embeddings.word_embeddings.weight"].T + t["cls.predictions.bias"]


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """By the definition, over labels that are not -100."""
    flat, labels = scores.flatten(0, -2).log_softmax(-1), labels.flatten()
    kept = labels != -100
    return -flat[kept, labels[kept]].mean()
