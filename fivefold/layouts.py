"""Where every tensor lies in each kind of checkpoint: one table of module names, both directions derived from it.

Knows names and shapes, opens no file. `MODULES` names each module in every form we read or write; `Form` turns the name
of one of our tensors into its `Place` in a foreign file; `Place` cuts a tensor into its foreign parts and joins them.

The layouts (facts of the published repositories):
    jina          one file, `roberta.` names, fused Wqkv, adapters stacked in banks under `parametrizations`
    hf            the same names without adapters, and one PEFT folder for each task, q, k and v apart
    transformers  what native `save_pretrained` writes: like hf without the prefix, PEFT folders beside it
    fivefold      our own: model.py's attribute names

Shapes: K tasks, R rank, D hidden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from fivefold.config import ModelConfig
from fivefold.model import Encoder

Shapes = Mapping[str, tuple[int, ...]]


class Kind(Enum):
    """What a module is, which decides the tensors it has."""

    TABLE = "embedding table"
    LINEAR = "linear"
    NORM = "layer norm"


class Scheme(Enum):
    """A way of naming modules: the columns of `MODULES`."""

    OWN = "own"
    JINA = "jina"
    NATIVE = "native"
    ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class Module:
    """One row of the table: our name, and the others'. Three names: query, key and value rows lie apart."""

    kind: Kind
    own: str
    jina: str
    native: tuple[str, ...]
    adapter: tuple[str, ...] = ()

    def names(self, scheme: Scheme) -> tuple[str, ...]:
        """The module's names in one column."""
        columns = {Scheme.OWN: (self.own,), Scheme.JINA: (self.jina,), Scheme.NATIVE: self.native}
        return columns.get(scheme) or self.adapter or (self.jina,)


def _qkv(attention: str) -> tuple[str, str, str]:
    return f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"


# `#` stands for the layer's number. The published adapters follow the jina column but for q, k and v.
MODULES: tuple[Module, ...] = (
    Module(
        Kind.TABLE,
        own="embeddings.word_embeddings",
        jina="embeddings.word_embeddings",
        native=("embeddings.word_embeddings",),
    ),
    Module(
        Kind.TABLE,
        own="embeddings.token_type_embeddings",
        jina="embeddings.token_type_embeddings",
        native=("embeddings.token_type_embeddings",),
    ),
    Module(Kind.NORM, own="embeddings.norm", jina="emb_ln", native=("embeddings.LayerNorm",)),
    Module(
        Kind.LINEAR,
        own="layers.#.attention.Wqkv",
        jina="encoder.layers.#.mixer.Wqkv",
        native=_qkv("layers.#.self_attn"),
        adapter=_qkv("encoder.layers.#.self_attn"),
    ),
    Module(
        Kind.LINEAR,
        own="layers.#.attention.out_proj",
        jina="encoder.layers.#.mixer.out_proj",
        native=("layers.#.self_attn.o_proj",),
    ),
    Module(
        Kind.NORM,
        own="layers.#.norm1",
        jina="encoder.layers.#.norm1",
        native=("layers.#.post_attention_layernorm",),
    ),
    Module(Kind.LINEAR, own="layers.#.mlp.fc1", jina="encoder.layers.#.mlp.fc1", native=("layers.#.mlp.fc1",)),
    Module(Kind.LINEAR, own="layers.#.mlp.fc2", jina="encoder.layers.#.mlp.fc2", native=("layers.#.mlp.fc2",)),
    Module(
        Kind.NORM,
        own="layers.#.norm2",
        jina="encoder.layers.#.norm2",
        native=("layers.#.post_mlp_layernorm",),
    ),
    Module(Kind.LINEAR, own="pooler.dense", jina="pooler.dense", native=("pooler.dense",)),
)
_BY_OWN_NAME = {module.own: module for module in MODULES}


class Leaves(Enum):
    """What a module's tensors are called behind its name."""

    PLAIN = "as ours"
    BANKS = "under parametrizations"
    PEFT = "as PEFT calls them"


# A leaf not listed is called as ours.
LEAF_NAMES: Mapping[Leaves, Mapping[tuple[Kind, str], str]] = {
    Leaves.PLAIN: {},
    Leaves.BANKS: {
        (kind, leaf): f"parametrizations.weight.{foreign}"
        for kind in (Kind.TABLE, Kind.LINEAR)
        for leaf, foreign in (("weight", "original"), ("lora_A", "0.lora_A"), ("lora_B", "0.lora_B"))
    },
    Leaves.PEFT: {
        (Kind.LINEAR, "lora_A"): "lora_A.weight",
        (Kind.LINEAR, "lora_B"): "lora_B.weight",
        (Kind.TABLE, "lora_A"): "lora_embedding_A",
        (Kind.TABLE, "lora_B"): "lora_embedding_B",
    },
}

# Axis of the rank in one task's term, in our own orientation.
RANK_AXIS: Mapping[tuple[Kind, str], int] = {
    (Kind.LINEAR, "lora_A"): 0,
    (Kind.LINEAR, "lora_B"): 1,
    (Kind.TABLE, "lora_A"): 1,
    (Kind.TABLE, "lora_B"): 0,
}

HEADS = re.compile(r"^(?:base_model\.model\.)?(?:lm_head|classifier|qa_outputs)\.")
"""Tensors of task heads that native transformers saves beside the body: known, and dropped."""


def parse(own_name: str) -> tuple[Module, str, str]:
    """Own tensor name -> its row of the table, the layer's number (or ''), and the leaf."""
    path, leaf = own_name.rsplit(".", 1)
    number = re.search(r"(?<=\.)\d+(?=\.)", path)
    layer = number.group() if number else ""
    return _BY_OWN_NAME[re.sub(r"(?<=\.)\d+(?=\.)", "#", path)], layer, leaf


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a config calls for, under our names, in the order of the model."""
    with torch.device("meta"):
        encoder = Encoder(config)
    return {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}


def is_bank(own_name: str) -> bool:
    """Whether the tensor of this name is a bank of LoRA terms, one for each task."""
    return own_name.endswith(("lora_A", "lora_B"))


def rank_axis(own_name: str) -> int:
    """Axis of the rank in one task's term of this bank."""
    module, _, leaf = parse(own_name)
    return RANK_AXIS[module.kind, leaf]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of our tensors lies in a foreign file: under one name, or in three parts."""

    names: tuple[str, ...]
    copies: bool = False
    """The parts are the same tensor again and again (a fused lora_A) rather than blocks of rows."""
    transposed: bool = False

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Our tensor -> the foreign tensors, by name."""
        whole = tensor.T if self.transposed else tensor
        parts = [whole] * len(self.names) if self.copies else whole.chunk(len(self.names))
        return dict(zip(self.names, parts, strict=True))

    def join(self, parts: Iterable[Tensor]) -> Tensor:
        """The foreign tensors -> ours; copies are the caller's to compare."""
        first, *rest = parts
        whole = torch.cat([first, *rest]) if rest and not self.copies else first
        return whole.T if self.transposed else whole

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of each foreign tensor, given ours."""
        if self.transposed:
            return own[::-1]
        return own if self.copies else (own[0] // len(self.names), *own[1:])


@dataclass(frozen=True, slots=True)
class Form:
    """One way of naming tensors in a file: a column of the table, a prefix, and the leaves."""

    scheme: Scheme
    prefix: str = ""
    leaves: Leaves = Leaves.PLAIN

    def place(self, own_name: str) -> Place:
        """Where the tensor of our name lies in a file of this form."""
        module, layer, leaf = parse(own_name)
        foreign = LEAF_NAMES[self.leaves].get((module.kind, leaf), leaf)
        paths = (name.replace("#", layer) for name in module.names(self.scheme))
        return Place(
            names=tuple(f"{self.prefix}{path}.{foreign}" for path in paths),
            copies=leaf == "lora_A",
            transposed=self.leaves is Leaves.PEFT and module.kind is Kind.TABLE,
        )

    def split(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under the names, and in the parts, of this form."""
        parts = (self.place(name).split(tensor) for name, tensor in tensors.items())
        return {foreign: part for split in parts for foreign, part in split.items()}


def closest(forms: Iterable[Form], own_names: Iterable[str], found: set[str]) -> Form | None:
    """The form whose names of our tensors meet most of the names found in a file; `None` where none meets any."""
    wanted = list(own_names)

    def met(form: Form) -> int:
        return sum(name in found for own in wanted for name in form.place(own).names)

    best = max(forms, key=met)
    return best if met(best) else None


def folder_name(task: str) -> str:
    """Name of a task's PEFT folder: `retrieval.query` -> `retrieval_query`."""
    return task.replace(".", "_").replace("-", "_")


def _shared_keys(config: ModelConfig) -> dict[str, Any]:
    """config.json keys that the jina and the hf repositories have in common."""
    ours = ("architectures", "model_type", "pooler")
    return {
        **{key: value for key, value in config.to_dict().items() if key not in ours},
        "classifier_dropout": None,
        "emb_pooler": None,
        "hidden_act": "gelu",
        "load_trained_adapters": bool(config.lora_adaptations),
        "lora_dropout_p": 0.0,
        "lora_main_params_trainable": False,
        "output_past": True,
        "position_embedding_type": "rotary",
        "truncate_dim": None,
        "use_cache": True,
        "use_flash_attn": True,
    }


_CODE = "jinaai/xlm-roberta-flash-implementation--"


def _jina_config(config: ModelConfig) -> dict[str, Any]:
    """config.json of the original repository, which names the code that goes with it."""
    body = "modeling_lora.XLMRobertaLoRA" if config.lora_adaptations else "modeling_xlm_roberta.XLMRobertaModel"
    classes = {
        "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": body,
        "AutoModelForMaskedLM": "modeling_xlm_roberta.XLMRobertaForMaskedLM",
        "AutoModelForPreTraining": "modeling_xlm_roberta.XLMRobertaForPreTraining",
    }
    auto_map = {key: _CODE + name for key, name in classes.items()}
    return {"architectures": ["XLMRobertaModel"], "auto_map": auto_map, **_shared_keys(config)}


def _native_config(config: ModelConfig) -> dict[str, Any]:
    """config.json for native transformers, which takes the rotary base from `rope_parameters` alone."""
    return {
        "architectures": ["JinaEmbeddingsV3Model"],
        "model_type": "jina_embeddings_v3",
        **_shared_keys(config),
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_emb_base},
    }


@dataclass(frozen=True, slots=True)
class Layout:
    """How to write one kind of checkpoint."""

    form: Form
    """Names in model.safetensors."""
    config: Callable[[ModelConfig], dict[str, Any]]
    bare: Form | None = None
    """Names where the model has no adapters, if they differ."""
    folders: bool = False
    """Whether each adapter has a PEFT folder (`PEFT_FORM`), rather than a place in banks beside the weights."""


OWN_FORM = Form(Scheme.OWN)
JINA_BANKS = Form(Scheme.JINA, "roberta.", Leaves.BANKS)
JINA_PLAIN = Form(Scheme.JINA, "roberta.")
BARE_PLAIN = Form(Scheme.JINA)
PEFT_FORM = Form(Scheme.ADAPTER, "roberta.", Leaves.PEFT)
WRAPPED_FORM = Form(Scheme.NATIVE, "base_model.model.", Leaves.PEFT)
"""As PEFT itself saves an adapter of native transformers' model."""

LAYOUTS: Mapping[str, Layout] = {
    "jina": Layout(JINA_BANKS, _jina_config, bare=JINA_PLAIN),
    "hf": Layout(JINA_PLAIN, _native_config, folders=True),
    "transformers": Layout(BARE_PLAIN, _native_config, folders=True),
    "fivefold": Layout(OWN_FORM, ModelConfig.to_dict),
}

# Every form that is read; on equal counts the first wins.
MODEL_FORMS: tuple[Form, ...] = (
    OWN_FORM,
    JINA_BANKS,
    Form(Scheme.JINA, "", Leaves.BANKS),
    JINA_PLAIN,
    BARE_PLAIN,
    Form(Scheme.NATIVE, "roberta."),
    Form(Scheme.NATIVE),
)
ADAPTER_FORMS: tuple[Form, ...] = tuple(
    Form(scheme, prefix + body, Leaves.PEFT)
    for scheme in (Scheme.ADAPTER, Scheme.NATIVE)
    for prefix in ("", "base_model.model.")
    for body in ("roberta.", "")
)

ADAPTER_CONFIG: Mapping[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": None,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_dropout": 0.0,
    "target_modules": [
        "word_embeddings",
        "token_type_embeddings",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "fc1",
        "fc2",
        "dense",
    ],
}
"""adapter_config.json of a task's PEFT folder, without its rank and alpha."""
