"""config.py: every published form of config.json, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fivefold.config import TASKS, ModelConfig
from fivefold.errors import CheckpointError, MissingFileError, UnknownTaskError
from tests import toy


def test_our_own_form_comes_back() -> None:
    """to_dict and from_dict are inverse, through JSON."""
    config = toy.config(rotary_emb_base=123.0, pooler=False)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("raw", "base"),
    [
        ({"rotary_emb_base": 10000.0}, 10000.0),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}, 5000.0),
        ({"rope_theta": 7000}, 7000.0),
        ({}, 20000.0),
        ({"rotary_emb_base": 20000.0, "rope_parameters": None}, 20000.0),
    ],
)
def test_rotary_base_of_each_form(raw: dict[str, object], base: float) -> None:
    """Original, native and silent configs."""
    assert ModelConfig.from_dict(raw).rotary_emb_base == base


@pytest.mark.parametrize(
    "raw",
    [
        {"architectures": ["LlamaForCausalLM"]},
        {"position_embedding_type": "absolute"},
        {"feed_forward_type": "swiglu"},
        {"architectures": ["JinaBertModel"]},  # its class's own defaults are absolute positions
        {"architectures": ["JinaBertModel"], "position_embedding_type": "relative_key", "feed_forward_type": "geglu"},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
        {"rotary_emb_base": -1},
        {"rotary_emb_base": "many"},
        {"hidden_size": 30, "num_attention_heads": 4},
        {"num_hidden_layers": 0},
        {"lora_adaptations": ["a"], "task_instructions": {"b": ""}},
    ],
)
def test_what_no_model_of_ours_has_is_refused(raw: dict[str, object]) -> None:
    """With the file and the field named."""
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ModelConfig.from_dict(raw)


JINABERT = {"architectures": ["JinaBertForMaskedLM"], "position_embedding_type": "alibi", "feed_forward_type": "geglu"}


def test_jinabert_defaults() -> None:
    """What a v2 config leaves out is as its own class has it, not as v3's."""
    config = ModelConfig.from_dict({**JINABERT, "max_position_embeddings": 8192, "vocab_size": 30528})
    assert (config.hidden_size, config.num_attention_heads, config.max_length, config.vocab_size) == (
        768,
        12,
        8192,
        30528,
    )
    assert (config.layer_norm_eps, config.pad_token_id, config.type_vocab_size) == (1e-12, 0, 2)
    assert config.bos_token_id is None
    assert config.gated and not config.qk_post_norm and not config.lora_adaptations


@pytest.mark.parametrize(
    "hint",
    [
        {"_name_or_path": "jinaai/jina-bert-v2-qk-post-norm"},
        {"auto_map": {"AutoModel": "jinaai/jina-bert-v2-qk-post-norm--modeling_bert.JinaBertModel"}},
        {"qk_post_norm": True},
    ],
)
def test_the_second_variant_is_known_by_its_code(hint: dict[str, object]) -> None:
    """By the repository that its config names, or by our own key."""
    assert ModelConfig.from_dict({**JINABERT, **hint}).qk_post_norm


def test_an_odd_head_is_fine_without_rotation() -> None:
    """Only rotary positions pair dimensions."""
    assert toy.jinabert_config(hidden_size=36, num_attention_heads=12, matryoshka_dimensions=()).head_dim == 3


def test_tasks_and_prompts() -> None:
    """Ids follow lora_adaptations; None is the body."""
    config = ModelConfig.from_dict({"lora_adaptations": [t.name for t in TASKS]})
    assert [config.task_id(t.name) for t in TASKS] == [0, 1, 2, 3, 4]
    assert config.task_id(None) == -1
    assert config.prompt("retrieval.passage") == "Represent the document for retrieval: "
    assert config.prompt(None) == config.prompt("separation") == ""
    with pytest.raises(UnknownTaskError, match=r"'nonsense'.*retrieval\.query, .*text-matching"):
        config.task_id("nonsense")


def test_files(tmp_path: Path) -> None:
    """Absent and malformed files say so."""
    with pytest.raises(MissingFileError, match="config.json does not exist"):
        ModelConfig.from_folder(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        ModelConfig.from_folder(tmp_path)
