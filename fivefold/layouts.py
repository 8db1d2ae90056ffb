"""Where every tensor lies in each kind of checkpoint: one table of module names, both directions derived from it.

Knows names and shapes, opens no file. `MODULES` names each module in every form we read or write; `Form` turns the name
of one of our tensors into its `Place` in a foreign file; `Place` cuts a tensor into its foreign parts and joins them.

The layouts (facts of the published repositories):
    jina          one file, `roberta.` names, fused Wqkv, adapters stacked in banks under `parametrizations`
    hf            the same names without adapters, and one PEFT folder for each task, q, k and v apart
    transformers  what native `save_pretrained` writes: like hf without the prefix, PEFT folders beside it
    jinabert      the v2 repositories, in two variants: BERT's names, q, k and v apart, no adapters
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
    JINABERT = "jinabert"
    QK_POST_NORM = "jinabert, the variant with normalised queries and keys"


@dataclass(frozen=True, slots=True)
class Module:
    """One row of the table: our name, and the others'. Three names: query, key and value rows lie apart.

    A column that an architecture has no use for is empty.
    """

    kind: Kind
    own: str
    jina: str = ""
    native: tuple[str, ...] = ()
    adapter: tuple[str, ...] = ()
    jinabert: tuple[str, ...] = ()
    qk_post_norm: tuple[str, ...] = ()

    def names(self, scheme: Scheme) -> tuple[str, ...]:
        """The module's names in one column."""
        columns = {
            Scheme.OWN: (self.own,),
            Scheme.JINA: (self.jina,),
            Scheme.NATIVE: self.native,
            Scheme.ADAPTER: self.adapter or (self.jina,),
            Scheme.JINABERT: self.jinabert,
            Scheme.QK_POST_NORM: self.qk_post_norm or self.jinabert,
        }
        return columns[scheme]


def _qkv(attention: str) -> tuple[str, str, str]:
    return f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"


_BERT_QKV = tuple(f"encoder.layer.#.attention.self.{name}" for name in ("query", "key", "value"))

# `#` stands for the layer's number. The published adapters follow the jina column but for q, k and v, and JinaBERT's second
# variant follows its first where it says nothing else.
MODULES: tuple[Module, ...] = (
    Module(
        Kind.TABLE,
        own="embeddings.word_embeddings",
        jina="embeddings.word_embeddings",
        native=("embeddings.word_embeddings",),
        jinabert=("embeddings.word_embeddings",),
    ),
    Module(
        Kind.TABLE,
        own="embeddings.token_type_embeddings",
        jina="embeddings.token_type_embeddings",
        native=("embeddings.token_type_embeddings",),
        jinabert=("embeddings.token_type_embeddings",),
    ),
    Module(
        Kind.NORM,
        own="embeddings.norm",
        jina="emb_ln",
        native=("embeddings.LayerNorm",),
        jinabert=("embeddings.LayerNorm",),
    ),
    Module(
        Kind.LINEAR,
        own="layers.#.attention.Wqkv",
        jina="encoder.layers.#.mixer.Wqkv",
        native=_qkv("layers.#.self_attn"),
        adapter=_qkv("encoder.layers.#.self_attn"),
        jinabert=_BERT_QKV,
    ),
    Module(Kind.NORM, own="layers.#.attention.q_norm", qk_post_norm=("encoder.layer.#.attention.self.layer_norm_q",)),
    Module(Kind.NORM, own="layers.#.attention.k_norm", qk_post_norm=("encoder.layer.#.attention.self.layer_norm_k",)),
    Module(
        Kind.LINEAR,
        own="layers.#.attention.out_proj",
        jina="encoder.layers.#.mixer.out_proj",
        native=("layers.#.self_attn.o_proj",),
        jinabert=("encoder.layer.#.attention.output.dense",),
    ),
    Module(
        Kind.NORM,
        own="layers.#.norm1",
        jina="encoder.layers.#.norm1",
        native=("layers.#.post_attention_layernorm",),
        jinabert=("encoder.layer.#.attention.output.LayerNorm",),
    ),
    Module(Kind.NORM, own="layers.#.skip_norm", qk_post_norm=("encoder.layer.#.layer_norm_1",)),
    Module(
        Kind.LINEAR,
        own="layers.#.mlp.fc1",
        jina="encoder.layers.#.mlp.fc1",
        native=("layers.#.mlp.fc1",),
        jinabert=("encoder.layer.#.mlp.gated_layers",),
        qk_post_norm=("encoder.layer.#.mlp.up_gated_layer",),
    ),
    Module(
        Kind.LINEAR,
        own="layers.#.mlp.fc2",
        jina="encoder.layers.#.mlp.fc2",
        native=("layers.#.mlp.fc2",),
        jinabert=("encoder.layer.#.mlp.wo",),
        qk_post_norm=("encoder.layer.#.mlp.down_layer",),
    ),
    Module(
        Kind.NORM,
        own="layers.#.norm2",
        jina="encoder.layers.#.norm2",
        native=("layers.#.post_mlp_layernorm",),
        jinabert=("encoder.layer.#.mlp.layernorm",),
        qk_post_norm=("encoder.layer.#.layer_norm_2",),
    ),
    Module(
        Kind.LINEAR,
        own="pooler.dense",
        jina="pooler.dense",
        native=("pooler.dense",),
        jinabert=("pooler.dense",),
    ),
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

SWAPPED_HALVES = frozenset({(Scheme.QK_POST_NORM, "layers.#.mlp.fc1")})
"""Gated linears whose second half is the gate; ours, like the others', is the first."""

HEADS = re.compile(r"^(?:base_model\.model\.)?(?:lm_head|classifier|qa_outputs|cls)\.")
"""Tensors of task heads that native transformers and JinaBERT save beside the body: known, and dropped."""


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
    swapped: bool = False
    """The two halves of the rows stand the other way round."""

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Our tensor -> the foreign tensors, by name."""
        whole = self._turned(tensor)
        parts = [whole] * len(self.names) if self.copies else whole.chunk(len(self.names))
        return dict(zip(self.names, parts, strict=True))

    def join(self, parts: Iterable[Tensor]) -> Tensor:
        """The foreign tensors -> ours; copies are the caller's to compare."""
        first, *rest = parts
        whole = torch.cat([first, *rest]) if rest and not self.copies else first
        return self._turned(whole)

    def _turned(self, tensor: Tensor) -> Tensor:
        """From our orientation to the foreign one, or back."""
        if self.swapped:
            return tensor.roll(len(tensor) // 2, 0)
        return tensor.T if self.transposed else tensor

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
            swapped=(self.scheme, module.own) in SWAPPED_HALVES,
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
    ours = ("architectures", "model_type", "pooler", "feed_forward_type", "qk_post_norm")
    return {
        **{key: value for key, value in config.to_dict().items() if key not in ours},
        "classifier_dropout": None,
        "emb_pooler": None,
        "hidden_act": "gelu",
        "load_trained_adapters": bool(config.lora_adaptations),
        "lora_dropout_p": 0.0,
        "lora_main_params_trainable": False,
        "output_past": True,
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


_JINABERT_CODE = {False: "jinaai/jina-bert-implementation", True: "jinaai/jina-bert-v2-qk-post-norm"}
_NOT_JINABERT = (
    "pooler",
    "qk_post_norm",
    "rotary_emb_base",
    "lora_adaptations",
    "lora_rank",
    "lora_alpha",
    "lora_words",
    "task_instructions",
)


def _jinabert_config(config: ModelConfig) -> dict[str, Any]:
    """config.json of a v2 repository; the code it names tells the two variants apart."""
    code = _JINABERT_CODE[config.qk_post_norm]
    heads = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering")
    classes = {
        "AutoConfig": "configuration_bert.JinaBertConfig",
        "AutoModel": "modeling_bert.JinaBertModel",
        **{f"AutoModelFor{head}": f"modeling_bert.JinaBertFor{head}" for head in heads},
    }
    return {
        **{key: value for key, value in config.to_dict().items() if key not in _NOT_JINABERT},
        "_name_or_path": code,
        "architectures": ["JinaBertModel"],
        "attn_implementation": "torch",
        "auto_map": {key: f"{code}--{name}" for key, name in classes.items()},
        "classifier_dropout": None,
        "emb_pooler": "mean",
        "hidden_act": "gelu",
        "model_max_length": config.max_length,
        "model_type": "bert",
        "use_cache": True,
    }


def _is_v3(config: ModelConfig) -> bool:
    return config.position_embedding_type == "rotary" and not config.gated and not config.qk_post_norm


def _is_jinabert(config: ModelConfig) -> bool:
    return config.position_embedding_type == "alibi" and config.gated and not config.lora_adaptations


@dataclass(frozen=True, slots=True)
class Layout:
    """How to write one kind of checkpoint."""

    form: Form
    """Names in model.safetensors."""
    config: Callable[[ModelConfig], dict[str, Any]]
    holds: Callable[[ModelConfig], bool]
    """Whether it has a place for everything in this model."""
    bare: Form | None = None
    """Names where the model has no adapters, if they differ."""
    qk_post_norm: Form | None = None
    """Names where the model is of that variant, if they differ."""
    folders: bool = False
    """Whether each adapter has a PEFT folder (`PEFT_FORM`), rather than a place in banks beside the weights."""

    def form_of(self, config: ModelConfig) -> Form:
        """Names in model.safetensors of this model."""
        if config.qk_post_norm:
            return self.qk_post_norm or self.form
        return self.form if config.lora_adaptations else self.bare or self.form


OWN_FORM = Form(Scheme.OWN)
JINA_BANKS = Form(Scheme.JINA, "roberta.", Leaves.BANKS)
JINA_PLAIN = Form(Scheme.JINA, "roberta.")
BARE_PLAIN = Form(Scheme.JINA)
PEFT_FORM = Form(Scheme.ADAPTER, "roberta.", Leaves.PEFT)
WRAPPED_FORM = Form(Scheme.NATIVE, "base_model.model.", Leaves.PEFT)
"""As PEFT itself saves an adapter of native transformers' model."""
JINABERT_FORM = Form(Scheme.JINABERT)
QK_POST_NORM_FORM = Form(Scheme.QK_POST_NORM)

LAYOUTS: Mapping[str, Layout] = {
    "jina": Layout(JINA_BANKS, _jina_config, _is_v3, bare=JINA_PLAIN),
    "hf": Layout(JINA_PLAIN, _native_config, _is_v3, folders=True),
    "transformers": Layout(BARE_PLAIN, _native_config, _is_v3, folders=True),
    "jinabert": Layout(JINABERT_FORM, _jinabert_config, _is_jinabert, qk_post_norm=QK_POST_NORM_FORM),
    "fivefold": Layout(OWN_FORM, ModelConfig.to_dict, lambda _: True),
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
    JINABERT_FORM,
    Form(Scheme.JINABERT, "bert."),
    QK_POST_NORM_FORM,
    Form(Scheme.QK_POST_NORM, "bert."),
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
