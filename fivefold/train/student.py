"""The student before training: the teacher's words and layers, with rotary positions.

The teacher adds a row for the position and one for the token type to every word row. Rotary positions replace the first, so
its mean over all positions joins the type row; the word rows stay the teacher's own. Adapters have no terms for words: trained
ones changed nothing that was measured, and would take 10 MB.

The teacher's heads know nothing of rotation, which would scramble their scores. Scores see queries and keys only through their
product, so each head's basis is free: it is turned so that the dimensions that turn fastest carry least. A large rotary base
leaves more dimensions slow, and all of them slower, which long texts need.

Shapes: V rows, D hidden, F intermediate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fivefold.config import TASKS, ModelConfig
from fivefold.model import Encoder
from fivefold.train.teacher import TeacherFile
from fivefold.train.vocabulary import SPECIALS

Tensors = dict[str, Tensor]

MATRYOSHKA = (32, 64, 128, 256, 384)
RANK = 4
POSITIONS = 8194
ROTARY_BASE = 1e6

# our linear or norm within a layer -> the teacher file's names, stacked in this order
_LAYER_PARTS: Mapping[str, tuple[str, ...]] = {
    "attention.Wqkv": ("q", "k", "v"),
    "attention.out_proj": ("ao",),
    "norm1": ("aln",),
    "mlp.fc1": ("fi",),
    "mlp.fc2": ("fo",),
    "norm2": ("oln",),
}


def student_config(file: TeacherFile, *, matryoshka: tuple[int, ...] = MATRYOSHKA) -> ModelConfig:
    """The teacher's sizes as a v3 model with all five adapters and the standard prompts."""
    body = ModelConfig(
        vocab_size=len(file.pieces),
        hidden_size=file.hidden_size,
        num_hidden_layers=file.num_layers,
        num_attention_heads=file.num_heads,
        intermediate_size=file.intermediate_size,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        layer_norm_eps=float(np.float32(file.layer_norm_eps)),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        bos_token_id=SPECIALS.index("<s>"),
        pad_token_id=SPECIALS.index("<pad>"),
        eos_token_id=SPECIALS.index("</s>"),
        pooler=False,
        rotary_emb_base=ROTARY_BASE,
        lora_rank=RANK,
        lora_alpha=1,
        lora_words=False,
        matryoshka_dimensions=tuple(dims for dims in matryoshka if dims <= file.hidden_size),
        torch_dtype="float32",
    )
    return with_tasks(body)


def with_tasks(config: ModelConfig) -> ModelConfig:
    """The same body with the release's five tasks and their prompts."""
    prompts = {task.name: task.prompt for task in TASKS}
    return replace(config, lora_adaptations=tuple(prompts), task_instructions=prompts)


def without_tasks(config: ModelConfig) -> ModelConfig:
    """The body alone, whose adapters would no longer fit once it has changed."""
    return replace(config, lora_adaptations=(), task_instructions={})


def student_tensors(file: TeacherFile) -> Tensors:
    """The body by our own names; rows of the word table that no piece has are left out."""
    constant = file.matrix("emb.pos", file.num_positions).mean(0) + file.matrix("emb.type", file.num_types)[0]
    tensors = {
        "embeddings.word_embeddings.weight": file.matrix("emb.word", file.vocab_size)[: len(file.pieces)].contiguous(),
        "embeddings.token_type_embeddings.weight": constant[None],
        "embeddings.norm.weight": file.vector("emb.ln.w"),
        "embeddings.norm.bias": file.vector("emb.ln.b"),
    }
    for n in range(file.num_layers):
        for ours, theirs in _LAYER_PARTS.items():
            tensors |= _layer_part(file, f"layers.{n}.{ours}", [f"l{n}.{name}" for name in theirs])
        wqkv = f"layers.{n}.attention.Wqkv"
        calm = calm_rotation(tensors[f"{wqkv}.weight"], tensors[f"{wqkv}.bias"], heads=file.num_heads)
        tensors |= dict(zip((f"{wqkv}.weight", f"{wqkv}.bias"), calm, strict=True))
    return tensors


def _layer_part(file: TeacherFile, name: str, parts: list[str]) -> Tensors:
    bias = torch.cat([file.vector(f"{part}.b") for part in parts])
    weight = torch.cat([file.vector(f"{part}.w") for part in parts])
    is_norm = len(weight) == len(bias)
    return {f"{name}.weight": weight if is_norm else weight.view(len(bias), -1), f"{name}.bias": bias}


def calm_rotation(weight: Tensor, bias: Tensor, *, heads: int) -> tuple[Tensor, Tensor]:
    """Wqkv [3D, D] and its bias [3D] with the same unrotated scores, and as little as possible where rotation is fast.

    With the bias as one more column, a head's scores are x Q^T K x. Of its singular values U S V^T, the largest go to the
    slowest pairs of dimensions (j, j + H/2), as rows S^1/2 U^T of the query and S^1/2 V^T of the key.
    """
    rows = torch.cat([weight, bias[:, None]], 1).double()  # [3D, D + 1]
    width = weight.shape[1] // heads
    by_head = rows.view(3, heads, width, -1)
    slowest_first = torch.arange(width).view(2, -1).flip(1).T.flatten()  # H/2 - 1, H - 1, H/2 - 2, ...
    for query, key in zip(by_head[0], by_head[1], strict=True):
        q_basis, q_rest = torch.linalg.qr(query.T)
        k_basis, k_rest = torch.linalg.qr(key.T)
        left, singular, right = torch.linalg.svd(q_rest @ k_rest.T)
        query[slowest_first] = ((q_basis @ left) * singular.sqrt()).T
        key[slowest_first] = ((k_basis @ right.T) * singular.sqrt()).T
    turned = rows.float()
    return turned[:, :-1].contiguous(), turned[:, -1].contiguous()


def build_student(config: ModelConfig, tensors: Tensors) -> Encoder:
    """An encoder with the given body; adapters start as ones that change nothing."""
    encoder = Encoder(config)
    encoder.reset_parameters()
    leftover = encoder.load_state_dict(tensors, strict=False)
    assert not leftover.unexpected_keys, leftover.unexpected_keys
    assert all("lora" in name for name in leftover.missing_keys), leftover.missing_keys
    return encoder
