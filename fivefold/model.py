"""The encoder: `PackedBatch` -> hidden states, in post-norm blocks.

Two architectures, one block: v3 (rotary positions, GELU) and v2, JinaBERT (ALiBi, GEGLU, and a variant that also
normalises queries and keys) differ by fields of the config.

Knows nothing of text, pooling or files. Attribute names are the tensor names of our own checkpoint layout
(checkpoint.py).

Shapes: T tokens in the pack, B sequences, D hidden, N heads, H head dim, F intermediate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.attention import alibi_bias, apply_rope, apply_turns, attention, rotary_tables
from fivefold.config import ModelConfig
from fivefold.lora import LoRAEmbedding, LoRALinear, TaskSlices, merge_task
from fivefold.packing import PackedBatch

Rotary = tuple[Tensor, Tensor]
Positions = Rotary | Tensor
"""What tells tokens apart by place, made once for all layers: rotary tables, the same as complex numbers, or a bias by distance
(attention.py)."""


def geglu(z: Tensor) -> Tensor:
    """GELU of the first half times the second (Shazeer 2020, arXiv 2002.05202): [T, 2F] -> [T, F]."""
    gate, up = z.chunk(2, dim=-1)
    return F.gelu(gate) * up


def reglu(z: Tensor) -> Tensor:
    """ReLU of the first half times the second: [T, 2F] -> [T, F]."""
    gate, up = z.chunk(2, dim=-1)
    return F.relu(gate) * up


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"original": F.gelu, "geglu": geglu, "reglu": reglu}
"""By `feed_forward_type`; GELU is the exact (erf) form."""


def _linear(config: ModelConfig, in_features: int, out_features: int, *, bias: bool = True) -> LoRALinear:
    tasks, rank = len(config.lora_adaptations), config.lora_rank
    return LoRALinear(in_features, out_features, tasks=tasks, rank=rank, scaling=config.lora_scaling, bias=bias)


def _table(config: ModelConfig, rows: int, *, adapted: bool = True) -> LoRAEmbedding:
    tasks, rank = len(config.lora_adaptations) if adapted else 0, config.lora_rank
    return LoRAEmbedding(rows, config.hidden_size, tasks=tasks, rank=rank, scaling=config.lora_scaling)


def _norm(config: ModelConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class Embeddings(nn.Module):
    """Word rows plus the row of token type 0, normalised. There is no table of positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word_embeddings = _table(config, config.vocab_size, adapted=config.lora_words)
        self.token_type_embeddings = _table(config, config.type_vocab_size)
        self.norm = _norm(config)
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
    """Bidirectional self-attention within each sequence of the pack."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.Wqkv = _linear(config, config.hidden_size, 3 * config.hidden_size)
        self.out_proj = _linear(config, config.hidden_size, config.hidden_size)
        self.q_norm, self.k_norm = (_norm(config) if config.qk_post_norm else nn.Identity() for _ in "qk")

    def forward(self, x: Tensor, batch: PackedBatch, positions: Positions) -> Tensor:
        """x [T, D] -> [T, D]."""
        q, k, v = self.project(x, batch.task_slices)
        if not isinstance(positions, Tensor):
            mixed = self.attend(apply_rope(q, *positions), apply_rope(k, *positions), v, batch)  # [T, N, H]
        elif positions.is_complex():
            mixed = self.attend(apply_turns(q, positions), apply_turns(k, positions), v, batch)
        else:
            mixed = self.attend(q, k, v, batch, positions)
        out: Tensor = self.out_proj(mixed.flatten(1), batch.task_slices)
        return out

    def project(self, x: Tensor, task_slices: TaskSlices) -> tuple[Tensor, ...]:
        """x [T, D] -> queries, keys and values, [T, N, H] each."""
        q, k, v = self.Wqkv(x, task_slices).chunk(3, dim=-1)  # [T, D] each
        wide = self.q_norm(q), self.k_norm(k), v
        return tuple(part.unflatten(-1, (self.num_heads, self.head_dim)) for part in wide)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, bias: Tensor | None = None) -> Tensor:
        """Each sequence's values, mixed by its own queries and keys: [T, N, H] all."""
        return attention(q, k, v, batch, bias=bias)


class MLP(nn.Module):
    """Two linears around an activation; where that is gated, the first is twice as wide and has no bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        gated, width = config.gated, config.intermediate_size
        self.activation = ACTIVATIONS[config.feed_forward_type]
        self.fc1 = _linear(config, config.hidden_size, 2 * width if gated else width, bias=not gated)
        self.fc2 = _linear(config, width, config.hidden_size)

    def forward(self, x: Tensor, task_slices: TaskSlices) -> Tensor:
        """x [T, D] -> [T, D]."""
        out: Tensor = self.fc2(self.activation(self.fc1(x, task_slices)), task_slices)
        return out


class Block(nn.Module):
    """Attention and MLP, each added to its input and normalised after (post-norm).

    With `qk_post_norm` the block's input is added, and normalised, once more between the two.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm1 = _norm(config)
        self.skip_norm = _norm(config) if config.qk_post_norm else None
        self.mlp = MLP(config)
        self.norm2 = _norm(config)
        self.dropout = config.hidden_dropout_prob

    def forward(self, x: Tensor, batch: PackedBatch, positions: Positions) -> Tensor:
        """x [T, D] -> [T, D]."""
        a = self.norm1(x + F.dropout(self.attention(x, batch, positions), self.dropout, self.training))
        if self.skip_norm is not None:
            a = self.skip_norm(x + a)
        out: Tensor = self.norm2(a + F.dropout(self.mlp(a, batch.task_slices), self.dropout, self.training))
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
        self.paired = False
        """Whether entries of queries and keys that turn together are neighbours (quantization.py)."""
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.run: Callable[[Tensor, PackedBatch], Tensor] | None = None
        """All layers in another form (quantization.py)."""
        self.pooler = Pooler(config) if config.pooler else None

    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden states [T, D] after the last layer."""
        x = self.embeddings(batch)
        if self.run is not None:
            return self.run(x, batch)
        positions = self._positions(batch, x)
        for layer in self.layers:
            x = layer(x, batch, positions)
        out: Tensor = x
        return out

    def _positions(self, batch: PackedBatch, x: Tensor) -> Positions:
        """Made for the longest sequence: the rotary tables gathered for every token, or the bias by distance."""
        config = self.config
        if config.position_embedding_type == "alibi":
            return alibi_bias(config.num_attention_heads, batch.max_seqlen, x.device, x.dtype)
        places = torch.arange(batch.max_seqlen, device=x.device)
        cos, sin = rotary_tables(places, config.head_dim, config.rotary_emb_base, x.dtype)
        if self.paired:
            return torch.complex(cos, sin)[batch.position_ids]
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
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                module.reset_lora()
            elif isinstance(module, LoRAEmbedding):
                nn.init.normal_(module.weight, std=std)
                module.reset_lora()
        self.embeddings.word_embeddings.weight[self.config.pad_token_id].zero_()
