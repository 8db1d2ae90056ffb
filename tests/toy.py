"""Small random models and a small real tokenizer, made in memory: what every test stands on."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from functools import cache

import numpy as np
import torch
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from fivefold.config import TASKS, ModelConfig
from fivefold.embedder import Embedder, TorchBackend
from fivefold.model import Encoder
from fivefold.packing import PackedBatch, pack
from fivefold.sequence import Sequence
from fivefold.tokenizer import Tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Der schnelle braune Fuchs springt über den faulen Hund am Flussufer.",
    "Le renard brun saute par-dessus le chien paresseux au bord de la rivière.",
    "El zorro marrón salta sobre el perro perezoso junto al río.",
    "Быстрая коричневая лиса прыгает через ленивую собаку у реки.",
    "敏捷的棕色狐狸跳过了河边的懒狗。今天天气很好，我们去公园散步。",
    "素早い茶色の狐が川辺の怠け者の犬を飛び越える。明日は雨が降るでしょう。",
    "तेज भूरी लोमड़ी नदी के किनारे आलसी कुत्ते के ऊपर कूदती है।",
    "الثعلب البني السريع يقفز فوق الكلب الكسول بالقرب من النهر.",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจใกล้แม่น้ำ",
    *(task.prompt for task in TASKS if task.prompt),
]


def config(**changes: object) -> ModelConfig:
    """A v3 architecture small enough to run in milliseconds, with all five tasks."""
    values: dict[str, object] = {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "lora_adaptations": tuple(t.name for t in TASKS),
        "task_instructions": {t.name: t.prompt for t in TASKS},
        "matryoshka_dimensions": (8, 16, 32),
    }
    return ModelConfig(**{**values, **changes})  # type: ignore[arg-type]


def jinabert_config(**changes: object) -> ModelConfig:
    """A v2 architecture of the same size, first variant."""
    values: dict[str, object] = {
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "lora_adaptations": (),
        "task_instructions": {},
    }
    return config(**{**values, **changes})


def encoder(model_config: ModelConfig | None = None, *, seed: int = 0, adapters: float = 0.5) -> Encoder:
    """Random weights; `adapters` is the size of the LoRA entries, large enough that tasks differ visibly."""
    torch.manual_seed(seed)
    model = Encoder(model_config or config())
    model.reset_parameters()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_(std=adapters)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif "norm" not in name:
                parameter.normal_(std=0.3)
    return model.eval().requires_grad_(False)


SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LONGEST_PIECE = 8


@cache
def rust_tokenizer() -> RustTokenizer:
    """A unigram tokenizer of XLM-R's shape: 400 pieces of `TEXTS`, the same in every process, as a trained one is not."""
    rust = RustTokenizer(models.Unigram(scored_pieces(400), unk_id=SPECIALS.index("<unk>")))
    rust.add_special_tokens(SPECIALS)
    rust.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    rust.decoder = decoders.Metaspace()
    rust.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return rust


def scored_pieces(size: int) -> list[tuple[str, float]]:
    """The special pieces, every character, and what covers most of `TEXTS`, with the logarithms of their shares."""
    words = [f"▁{word}" for text in TEXTS for word in unicodedata.normalize("NFKC", text).split()]
    counts = Counter(
        word[start:stop]
        for word in words
        for start in range(len(word))
        for stop in range(start + 1, min(len(word), start + LONGEST_PIECE) + 1)
    )
    best = sorted(counts, key=lambda piece: (len(piece) > 1, -counts[piece] * len(piece), piece))
    total = sum(counts.values())
    scored = [(piece, math.log(counts[piece] / total)) for piece in best[: size - len(SPECIALS)]]
    return [*((piece, 0.0) for piece in SPECIALS), *scored]


def tokenizer(model_config: ModelConfig | None = None) -> Tokenizer:
    """The toy tokenizer with the toy model's prompts."""
    return Tokenizer(rust_tokenizer(), model_config or config())


def embedder(model_config: ModelConfig | None = None, *, max_batch_tokens: int = 256) -> Embedder:
    """A whole toy system."""
    made = model_config or config()
    backend = TorchBackend(encoder(made), torch.device("cpu"))
    return Embedder(backend, tokenizer(made), model_name="toy", max_batch_tokens=max_batch_tokens)


def sequence(ids: list[int], task_id: int = -1, spans: list[tuple[int, int]] | None = None) -> Sequence:
    """A `Sequence` from plain numbers, pooled as a whole unless spans are given."""
    whole = spans or [(0, len(ids))]
    return Sequence(np.array(ids, dtype=np.int32), task_id, np.array(whole, dtype=np.int32))


def sequences(lengths: tuple[int, ...]) -> list[Sequence]:
    """One text of each length, with all tasks and none, by task."""
    texts = [sequence([5 + (7 * i + n) % 300 for i in range(n)], n % 6 - 1) for n in lengths]
    return sorted(texts, key=lambda text: text.task_id)


def batch(lengths: tuple[int, ...]) -> PackedBatch:
    """Those in one pack."""
    return pack(sequences(lengths))
