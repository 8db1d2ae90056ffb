"""The encoder's modules under native transformers' names, on padded rows.

model.py computes; here stand the names that checkpoints, PEFT and people's scripts know, plain `nn.Linear`s for PEFT to
wrap, and the seam to transformers' attention functions. Rows are laid end to end like any pack. Their padding stays in
it as tokens that nobody attends to, because transformers' outputs and losses read it: a span loss sums over all of a row,
and a row padded on the left has a padding token in first place.

Shapes: B rows, L tokens of a row, T = B L, D hidden, N heads, H head dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JinaEmbeddingsV3Config
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fivefold.lora import TaskSlices
from fivefold.model import MLP, Attention, Block, Embeddings, Pooler, Rotary


@dataclass(frozen=True)
class Rows:
    """What the blocks read of a batch of B rows, beside its tokens. Adapters are PEFT's here, so there are no slices."""

    shape: tuple[int, int]
    cu_seqlens: Tensor  # [B + 1]
    mask: Any  # in the form that the attention function takes; None: every token is attended to
    options: Mapping[str, Any]  # passed on to the attention function

    task_slices: ClassVar[TaskSlices] = ()
    sequence_slices: ClassVar[TaskSlices] = ()

    def to(self, device: torch.device) -> Rows:
        """The same rows on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, cu_seqlens=self.cu_seqlens.to(device), mask=mask)


def rows(shape: tuple[int, int], mask: Any, options: Mapping[str, Any], device: torch.device) -> Rows:
    """`Rows` of a shape [B, L]."""
    count, length = shape
    return Rows(shape, torch.arange(count + 1, device=device) * length, mask, options)


class Linear(nn.Linear):
    """A linear that is called as ours are, with task slices, of which it has no need."""

    def forward(self, x: Tensor, task_slices: TaskSlices = ()) -> Tensor:
        """x [..., in] -> [..., out]."""
        return super().forward(x)


def named(name: str) -> Any:
    """A module of ours by its native name."""
    return property(lambda self: getattr(self, name))


class JinaEmbeddingsV3Embeddings(Embeddings):
    """`Embeddings` with native names and inputs."""

    norm = named("LayerNorm")

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        nn.Module.__init__(self)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)  # type: ignore[assignment]
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)  # type: ignore[assignment]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Ids [B, L] or their rows [B, L, D], and types [B, L], by default 0 -> [B, L, D]."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = torch.zeros(words.shape[:-1], dtype=torch.long, device=words.device)
        return self.join(words, self.token_type_embeddings(token_type_ids))


class AttentionFunction(nn.Module):
    """The function that `attn_implementation` names; a module, so that transformers can record its probabilities."""

    def forward(self, owner: Attention, qkv: tuple[Tensor, ...], batch: Rows) -> tuple[Tensor, Tensor | None]:
        """Queries, keys, values [T, N, H] -> mixed values [T, N, H]; probabilities [B, N, L, L] from eager alone."""
        config: JinaEmbeddingsV3Config = owner.config
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, _eager)
        mixed, probabilities = attend(
            owner,
            *(x.view(*batch.shape, *x.shape[1:]).transpose(1, 2) for x in qkv),  # [B, N, L, H] each
            batch.mask,
            dropout=config.attention_probs_dropout_prob if self.training else 0.0,
            scaling=owner.head_dim**-0.5,
            **batch.options,
        )
        return mixed.flatten(0, 1), probabilities


def _eager(
    owner: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scaling: float, dropout: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Softmax written out, for those who want the probabilities: q, k, v [B, N, L, H] -> [B, L, N, H], [B, N, L, L]."""
    scores = q @ k.transpose(-1, -2) * scaling
    probabilities = (scores if mask is None else scores + mask).softmax(-1)
    probabilities = F.dropout(probabilities, dropout, owner.training)
    return (probabilities @ v).transpose(1, 2), probabilities


class JinaEmbeddingsV3Attention(Attention):
    """`Attention` with queries, keys and values apart."""

    is_causal = False  # read by transformers' attention functions

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.num_heads
        inner = self.num_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, inner)
        self.k_proj = nn.Linear(config.hidden_size, inner)
        self.v_proj = nn.Linear(config.hidden_size, inner)
        self.o_proj = Linear(inner, config.hidden_size)
        self.function = AttentionFunction()

    out_proj = named("o_proj")

    def project(self, x: Tensor, task_slices: TaskSlices) -> tuple[Tensor, ...]:
        """x [T, D] -> queries, keys and values, [T, N, H] each."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        return tuple(linear(x).view(-1, self.num_heads, self.head_dim) for linear in projections)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, batch: Rows) -> Tensor:  # type: ignore[override]
        """[T, N, H] all."""
        mixed: Tensor = self.function(self, (q, k, v), batch)[0]
        return mixed


class JinaEmbeddingsV3MLP(MLP):
    """`MLP` with the configured activation."""

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        nn.Module.__init__(self)
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)  # type: ignore[assignment]
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)  # type: ignore[assignment]
        self.activation = ACT2FN[config.hidden_act]


class JinaEmbeddingsV3Layer(GradientCheckpointingLayer, Block):
    """`Block` with native names, from rows to rows."""

    attention = named("self_attn")
    norm1 = named("post_attention_layernorm")
    norm2 = named("post_mlp_layernorm")
    skip_norm = None

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        nn.Module.__init__(self)
        self.self_attn = JinaEmbeddingsV3Attention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = JinaEmbeddingsV3MLP(config)
        self.post_mlp_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, x: Tensor, batch: Rows, rotary: Rotary) -> Tensor:  # type: ignore[override]
        """x [B, L, D] -> [B, L, D]."""
        return Block.forward(self, x.flatten(0, 1), batch, rotary).view_as(x)  # type: ignore[arg-type]


class JinaEmbeddingsV3Pooler(Pooler):
    """`Pooler`, with a linear for PEFT to wrap."""

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        nn.Module.__init__(self)
        self.dense = Linear(config.hidden_size, config.hidden_size)  # type: ignore[assignment]
