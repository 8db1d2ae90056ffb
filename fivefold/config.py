"""What a checkpoint says about itself: `ModelConfig` is config.json, and the five tasks.

Knows nothing of tensors or text. The same dataclass reads the original jina repository, the `-hf` repository, what
native transformers saves, the JinaBERT (v2) repositories, and our own folders; `to_dict` writes ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fivefold.errors import CheckpointError, MissingFileError, UnknownTaskError

NO_TASK = -1
"""Task id of a sequence that runs through the body alone: no adapter, no prompt."""
NO_TASK_WORD = "none"
"""The same as people write it, on the command line or in a column of tasks."""


@dataclass(frozen=True, slots=True)
class Task:
    """One adapter: its name, the prompt put before every text, and what it is for."""

    name: str
    prompt: str
    use: str


# The order is the task id, as in the published `lora_adaptations`.
TASKS: tuple[Task, ...] = (
    Task(
        "retrieval.query",
        "Represent the query for retrieving evidence documents: ",
        "queries of asymmetric search",
    ),
    Task(
        "retrieval.passage",
        "Represent the document for retrieval: ",
        "documents of asymmetric search",
    ),
    Task("separation", "", "clustering and re-ranking"),
    Task("classification", "", "features for classifiers"),
    Task("text-matching", "", "similarity of two texts of one kind"),
)


def task_name(word: str | None, default: str | None) -> str | None:
    """A task as people write it -> a task name: nothing is `default`, `none` is no adapter."""
    if word is None:
        return default
    return None if word == NO_TASK_WORD else word


DEFAULT_ROPE_BASE = 20000.0
"""Base of the rotary frequencies at inference where a native config does not say (facts of the release)."""

# Architecture names whose checkpoints hold the v3 or the v2 model; anything else is refused by name.
V3_ARCHITECTURES = frozenset(
    {
        "FivefoldModel",
        "XLMRobertaModel",
        "XLMRobertaForMaskedLM",
        "XLMRobertaLoRA",
        "JinaEmbeddingsV3Model",
        "JinaEmbeddingsV3ForMaskedLM",
        "JinaEmbeddingsV3ForSequenceClassification",
        "JinaEmbeddingsV3ForTokenClassification",
        "JinaEmbeddingsV3ForQuestionAnswering",
    }
)
JINABERT_ARCHITECTURES = frozenset(
    {
        "JinaBertModel",
        "JinaBertForPreTraining",
        "JinaBertLMHeadModel",
        "JinaBertForMaskedLM",
        "JinaBertForNextSentencePrediction",
        "JinaBertForSequenceClassification",
        "JinaBertForMultipleChoice",
        "JinaBertForTokenClassification",
        "JinaBertForQuestionAnswering",
    }
)

# What a JinaBERT config.json leaves out has the value that its published configuration class gives it.
JINABERT_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "feed_forward_type": "original",
}

NULLABLE = ("bos_token_id", "eos_token_id")
"""Keys whose null says something: the model has no such token."""

POSITIONS = ("rotary", "alibi")
FEED_FORWARDS = ("original", "geglu", "reglu")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture and the tasks of one checkpoint; field names are config.json's own."""

    vocab_size: int = 250002
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    max_position_embeddings: int = 8194
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    position_embedding_type: str = "rotary"
    rotary_emb_base: float = DEFAULT_ROPE_BASE
    feed_forward_type: str = "original"
    qk_post_norm: bool = False
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    bos_token_id: int | None = 0
    pad_token_id: int = 1
    eos_token_id: int | None = 2
    pooler: bool = True
    lora_adaptations: tuple[str, ...] = ()
    lora_rank: int = 4
    lora_alpha: float = 1.0
    lora_words: bool = True
    """Whether adapters have a term for every word of the table too, as the release's have."""
    task_instructions: Mapping[str, str] = field(default_factory=dict)
    matryoshka_dimensions: tuple[int, ...] = ()
    torch_dtype: str | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that no model can have, naming the field."""
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise CheckpointError(f"config.json: {name} must be at least 1, got {getattr(self, name)}")
        for name, known in (("position_embedding_type", POSITIONS), ("feed_forward_type", FEED_FORWARDS)):
            if getattr(self, name) not in known:
                raise CheckpointError(
                    f"config.json: {name} {getattr(self, name)!r} is not supported; only {' and '.join(known)} are"
                )
        rotary = self.position_embedding_type == "rotary"
        if self.hidden_size % self.num_attention_heads or (rotary and self.head_dim % 2):
            raise CheckpointError(
                f"config.json: hidden_size {self.hidden_size} over num_attention_heads {self.num_attention_heads} "
                f"must give a whole head size, and an even one for rotary positions"
            )
        unknown = set(self.task_instructions) - set(self.lora_adaptations)
        if unknown:
            raise CheckpointError(f"config.json: task_instructions names tasks without an adapter: {sorted(unknown)}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def gated(self) -> bool:
        """Whether one half of the first feed-forward linear gates the other."""
        return self.feed_forward_type != "original"

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens, special tokens included."""
        return self.max_position_embeddings

    @property
    def lora_scaling(self) -> float:
        """Factor of every low-rank term: alpha / rank."""
        return self.lora_alpha / self.lora_rank

    def task_id(self, task: str | None) -> int:
        """Task name -> index into the LoRA banks; `None` -> `NO_TASK`."""
        if task is None:
            return NO_TASK
        try:
            return self.lora_adaptations.index(task)
        except ValueError:
            names = ", ".join(self.lora_adaptations) or "none: this checkpoint has no adapters"
            raise UnknownTaskError(
                f"unknown task {task!r}; the model's tasks are: {names}. "
                "Pass task=None for the body without an adapter."
            ) from None

    def prompt(self, task: str | None) -> str:
        """The instruction that goes before every text of this task."""
        return self.task_instructions.get(task, "") if task is not None else ""

    def with_prompts(self, prompts: Mapping[str, str]) -> ModelConfig:
        """The same with other instructions for some tasks."""
        for task in prompts:
            self.task_id(task)
        return replace(self, task_instructions={**self.task_instructions, **prompts})

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Read any of the known config.json forms; unknown keys are ignored, as every reader of these files does."""
        jinabert = _is_jinabert(raw)
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in raw.items() if k in known and (v is not None or k in NULLABLE)}
        if jinabert:
            values = {**JINABERT_DEFAULTS, **values, "qk_post_norm": is_qk_post_norm(raw)}
        values["rotary_emb_base"] = _rope_base(raw)
        values["torch_dtype"] = raw.get("torch_dtype") or raw.get("dtype")
        for name in ("lora_adaptations", "matryoshka_dimensions"):
            values[name] = tuple(values.get(name, ()))
        if "lora_adaptations" in raw and "task_instructions" not in raw:
            values["task_instructions"] = {t.name: t.prompt for t in TASKS if t.name in values["lora_adaptations"]}
        return cls(**values)

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read `config.json` of a model folder."""
        path = Path(folder) / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MissingFileError(f"{path} does not exist: a model folder needs its config.json") from None
        except ValueError as error:
            raise CheckpointError(f"{path} is not valid JSON ({error}); fetch or write it again") from None
        return cls.from_dict(raw)

    def to_dict(self) -> dict[str, Any]:
        """The config.json of our own layout."""
        values = asdict(self)
        values["task_instructions"] = dict(self.task_instructions)
        if self.lora_words:
            del values["lora_words"]  # as everywhere else
        return {"architectures": ["FivefoldModel"], "model_type": "fivefold", **values}


def _is_jinabert(raw: Mapping[str, Any]) -> bool:
    """Whether the architectures are JinaBERT's; refuses those that are neither its nor v3's."""
    architectures = raw.get("architectures") or []
    jinabert = not JINABERT_ARCHITECTURES.isdisjoint(architectures)
    if architectures and not jinabert and V3_ARCHITECTURES.isdisjoint(architectures):
        raise CheckpointError(
            f"config.json describes {', '.join(architectures)}, not a jina-embeddings-v3 or JinaBERT model; "
            f"known are: {', '.join(sorted(V3_ARCHITECTURES | JINABERT_ARCHITECTURES))}"
        )
    return jinabert


def is_qk_post_norm(raw: Mapping[str, Any]) -> bool:
    """Whether a JinaBERT config is of the second variant: it names its code, or has our own key."""
    code = (raw.get("_name_or_path"), *(raw.get("auto_map") or {}).values())
    return bool(raw.get("qk_post_norm")) or any("qk-post-norm" in str(name) for name in code)


def _rope_base(raw: Mapping[str, Any]) -> float:
    """Base of the rotary frequencies: `rope_parameters` where native transformers wrote it, else `rotary_emb_base`."""
    rope = raw.get("rope_parameters") or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise CheckpointError(f"config.json: rope_type {kind!r} is not supported; only the default rotation is")
    base = rope.get("rope_theta") or raw.get("rope_theta") or raw.get("rotary_emb_base") or DEFAULT_ROPE_BASE
    if not isinstance(base, int | float) or base <= 0:
        raise CheckpointError(f"config.json: the rotary base must be a positive number, got {base!r}")
    return float(base)
