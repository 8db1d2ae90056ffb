"""The encoder: `PackedBatch` -> hidden states. XLM-RoBERTa's post-norm blocks with rotary positions.

Knows nothing of text, pooling or files. Attribute names are the tensor names of our own checkpoint layout
(checkpoint.py).

Shapes: T tokens in the pack, B sequences, D hidden, N heads, H head dim, F intermediate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.attention import apply_rope, attention, rotary_tables
from fivefold.config import ModelConfig
from fivefold.lora import LoRAEmbedding, LoRALinear, TaskSlices, merge_task
from fivefold.packing import PackedBatch

Rotary = tuple[Tensor, Tensor]


def _linear(config: ModelConfig, in_features: int, out_features: int) -> LoRALinear:
    tasks, rank = len(config.lora_adaptations), config.lora_rank
    return LoRALinear(in_features, out_features, tasks=tasks, rank=rank, scaling=config.lora_scaling)


def _table(config: ModelConfig, rows: int) -> LoRAEmbedding:
    tasks, rank = len(config.lora_adaptations), config.lora_rank
    return LoRAEmbedding(rows, config.hidden_size, tasks=tasks, rank=rank, scaling=config.lora_scaling)


class Embeddings(nn.Module):
    """Word rows plus the row of token type 0, normalised. There is no table of positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word_embeddings = _table(config, config.vocab_size)
        self.token_type_embeddings = _table(config, config.type_vocab_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, batch: PackedBatch) -> Tensor:
        """-> [T, D]."""
        ids = batch.input_ids
        words = self.word_embeddings(ids, batch.task_slices)
        return self.join(words, self.token_type_embeddings(torch.zeros_like(ids), batch.task_slices))

    def join(self, words: Tensor, types: Tensor) -> Tensor:
        """Word rows and type rows [..., D] -> [..., D]."""
        return F.dropout(self.norm(words + types), self.dropout, self.training)


class Attention(nn.Module):
    """Bidirectional self-attention within each sequence of the pack, rotary positions on queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.Wqkv = _linear(config, config.hidden_size, 3 * config.hidden_size)
        self.out_proj = _linear(config, config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, batch: PackedBatch, rotary: Rotary) -> Tensor:
        """x [T, D] -> [T, D]."""
        q, k, v = self.project(x, batch.task_slices)
        mixed = self.attend(apply_rope(q, *rotary), apply_rope(k, *rotary), v, batch)  # [T, N, H]
        out: Tensor = self.out_proj(mixed.flatten(1), batch.task_slices)
        return out

    def project(self, x: Tensor, task_slices: TaskSlices) -> tuple[Tensor, ...]:
        """x [T, D] -> queries, keys and values, [T, N, H] each."""
        qkv: Tensor = self.Wqkv(x, task_slices)
        return qkv.view(-1, 3, self.num_heads, self.head_dim).unbind(1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch) -> Tensor:
        """Each sequence's values, mixed by its own queries and keys: [T, N, H] all."""
        return attention(q, k, v, batch)


class MLP(nn.Module):
    """Two linears around the exact (erf) GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = _linear(config, config.hidden_size, config.intermediate_size)
        self.fc2 = _linear(config, config.intermediate_size, config.hidden_size)
        self.activation: Callable[[Tensor], Tensor] = F.gelu

    def forward(self, x: Tensor, task_slices: TaskSlices) -> Tensor:
        """x [T, D] -> [T, D]."""
        out: Tensor = self.fc2(self.activation(self.fc1(x, task_slices)), task_slices)
        return out


class Block(nn.Module):
    """Attention and MLP, each added to its input and normalised after (post-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, x: Tensor, batch: PackedBatch, rotary: Rotary) -> Tensor:
        """x [T, D] -> [T, D]."""
        x = self.norm1(x + F.dropout(self.attention(x, batch, rotary), self.dropout, self.training))
        out: Tensor = self.norm2(x + F.dropout(self.mlp(x, batch.task_slices), self.dropout, self.training))
        return out


class Pooler(nn.Module):
    """tanh of a linear on each sequence's first token: the classification feature, not the sentence embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = _linear(config, config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """hidden [T, D] -> [B, D]."""
        first = hidden[batch.cu_seqlens[:-1].long()]
        out: Tensor = self.dense(first, batch.sequence_slices).tanh()
        return out


class Encoder(nn.Module):
    """The whole body with its adapters. Parameters are uninitialised until loaded or `reset_parameters` is called."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.pooler = Pooler(config) if config.pooler else None

    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden states [T, D] after the last layer."""
        x = self.embeddings(batch)
        rotary = self._rotary(batch, x.dtype)
        for layer in self.layers:
            x = layer(x, batch, rotary)
        out: Tensor = x
        return out

    def _rotary(self, batch: PackedBatch, dtype: torch.dtype) -> Rotary:
        """Tables of the longest sequence, gathered for every token: [T, 1, H/2] each."""
        positions = torch.arange(batch.max_seqlen, device=batch.position_ids.device)
        cos, sin = rotary_tables(positions, self.config.head_dim, self.config.rotary_emb_base, dtype)
        return cos[batch.position_ids], sin[batch.position_ids]

    def merge(self, task: str | None) -> None:
        """Fold the adapter of one task into the weights, in place; the model then serves that task only, without
        LoRA cost."""
        merge_task(self, self.config.task_id(task))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start values of the release: normal(0, initializer_range), zero biases, unit norms, adapters that change
        nothing."""
        std = self.config.initializer_range
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, LoRALinear):
                nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
                module.reset_lora()
            elif isinstance(module, LoRAEmbedding):
                nn.init.normal_(module.weight, std=std)
                module.reset_lora()
        self.embeddings.word_embeddings.weight[self.config.pad_token_id].zero_()
