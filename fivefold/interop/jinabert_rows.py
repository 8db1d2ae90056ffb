"""JinaBERT's layers under their published names, on padded rows: see rows.py, whose embeddings and pooler bear BERT's names.

Shapes: B rows, L tokens of a row, T = B L, D hidden, N heads, H head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from fivefold.attention import biased_sdpa, reversed_rows
from fivefold.interop.rows import Linear, Rows
from fivefold.lora import TaskSlices
from fivefold.model import ACTIVATIONS, MLP, Attention, Block, Positions


def additive_mask(attention_mask: Tensor, dtype: torch.dtype, *, causal: bool) -> Tensor | None:
    """1 to attend and 0 not to, [B, L] or [B, L, L] -> what is added to scores, [B, 1, 1 or L, L]; None: nothing is.

    A causal mask also hides what comes after a token.
    """
    seen = attention_mask.bool()
    seen = seen[:, None] if seen.dim() == 3 else seen[:, None, None]
    if causal:
        seen = seen & torch.ones(seen.shape[-1], seen.shape[-1], dtype=torch.bool, device=seen.device).tril()
    if seen.all():
        return None
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


class JinaBertAttentionFunction(nn.Module):
    """Attention with a bias by distance; a module, so that transformers can record its probabilities."""

    def forward(
        self, owner: Attention, qkv: tuple[Tensor, ...], batch: Rows, bias: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Queries, keys, values [T, N, H] -> mixed values [T, N, H]; probabilities [B, N, L, L] from eager alone."""
        q, k, v = (x.view(*batch.shape, *x.shape[1:]).transpose(1, 2) for x in qkv)  # [B, N, L, H] each
        config: Any = owner.config
        if config._attn_implementation != "eager":
            return biased_sdpa(q, k, v, bias, batch.mask).transpose(1, 2).flatten(0, 1), None
        added = reversed_rows(bias, batch.shape[1]).flip(2)
        added = added if batch.mask is None else added + batch.mask
        probabilities = (q @ k.transpose(-1, -2) * owner.head_dim**-0.5 + added).softmax(-1)
        probabilities = F.dropout(probabilities, config.attention_probs_dropout_prob, self.training)
        return (probabilities @ v).transpose(1, 2).flatten(0, 1), probabilities


def _norm(config: Any) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class JinaBertAttention(Attention):
    """`Attention` with queries, keys and values apart, and the norm after it inside, as BERT has it."""

    def __init__(self, config: Any) -> None:
        nn.Module.__init__(self)
        width = config.hidden_size
        self.config = config
        self.num_heads, self.head_dim = config.num_attention_heads, width // config.num_attention_heads
        self.self = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        if config.qk_post_norm:
            self.self.update({"layer_norm_q": _norm(config), "layer_norm_k": _norm(config)})
        self.output = nn.ModuleDict({"dense": Linear(width, width), "LayerNorm": _norm(config)})
        self.function = JinaBertAttentionFunction()

    out_proj = property(lambda self: self.output["dense"])

    def project(self, x: Tensor, task_slices: TaskSlices) -> tuple[Tensor, ...]:
        """x [T, D] -> queries, keys and values, [T, N, H] each."""
        q, k, v = (self.self[name](x) for name in ("query", "key", "value"))
        if "layer_norm_q" in self.self:
            q, k = self.self["layer_norm_q"](q), self.self["layer_norm_k"](k)
        return tuple(part.unflatten(-1, (self.num_heads, self.head_dim)) for part in (q, k, v))

    def attend(  # type: ignore[override]
        self, q: Tensor, k: Tensor, v: Tensor, batch: Rows, bias: Tensor | None = None
    ) -> Tensor:
        """[T, N, H] all."""
        mixed: Tensor = self.function(self, (q, k, v), batch, bias)[0]
        return mixed


class JinaBertMLP(MLP):
    """`MLP` of the first variant, with the norm after it inside."""

    def __init__(self, config: Any) -> None:
        nn.Module.__init__(self)
        self.activation = ACTIVATIONS[config.feed_forward_type]
        self.gated_layers = Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.wo = Linear(config.intermediate_size, config.hidden_size)
        self.layernorm = _norm(config)

    fc1 = property(lambda self: self.gated_layers)
    fc2 = property(lambda self: self.wo)


class JinaBertQkPostNormMLP(MLP):
    """`MLP` of the second variant, whose gate is the second half."""

    def __init__(self, config: Any) -> None:
        nn.Module.__init__(self)
        self.gate_first = ACTIVATIONS[config.feed_forward_type]
        self.up_gated_layer = Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_layer = Linear(config.intermediate_size, config.hidden_size)

    fc1 = property(lambda self: self.up_gated_layer)
    fc2 = property(lambda self: self.down_layer)

    def activation(self, z: Tensor) -> Tensor:
        """[T, 2F] -> [T, F]."""
        return self.gate_first(z.roll(z.shape[-1] // 2, -1))


class JinaBertLayer(GradientCheckpointingLayer, Block):
    """`Block` of the first variant, from rows to rows."""

    skip_norm = None
    norm1 = property(lambda self: self.attention.output["LayerNorm"])
    norm2 = property(lambda self: self.mlp.layernorm)

    def __init__(self, config: Any) -> None:
        nn.Module.__init__(self)
        self.attention = JinaBertAttention(config)
        self.mlp = JinaBertMLP(config)
        self.dropout = config.hidden_dropout_prob

    def forward(self, x: Tensor, batch: Rows, positions: Positions) -> Tensor:  # type: ignore[override]
        """x [B, L, D] -> [B, L, D]."""
        return Block.forward(self, x.flatten(0, 1), batch, positions).view_as(x)  # type: ignore[arg-type]


class JinaBertQkPostNormLayer(JinaBertLayer):
    """`Block` of the second variant."""

    skip_norm = property(lambda self: self.layer_norm_1)
    norm2 = property(lambda self: self.layer_norm_2)

    def __init__(self, config: Any) -> None:
        nn.Module.__init__(self)
        self.attention = JinaBertAttention(config)
        self.mlp = JinaBertQkPostNormMLP(config)
        self.layer_norm_1, self.layer_norm_2 = _norm(config), _norm(config)
        self.dropout = config.hidden_dropout_prob


class JinaBertEncoder(nn.Module):
    """All layers, of one variant."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        kind = JinaBertQkPostNormLayer if config.qk_post_norm else JinaBertLayer
        self.layer = nn.ModuleList(kind(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, batch: Rows, positions: Positions) -> Tensor:
        """x [B, L, D] -> [B, L, D]."""
        for layer in self.layer:
            x = layer(x, batch, positions)
        return x
