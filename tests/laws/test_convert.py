"""Law: converting there and back is the identity, bit for bit, between every two layouts."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch

from fivefold.checkpoint import convert, detect_layout, read, write
from fivefold.config import ModelConfig
from fivefold.layouts import LAYOUTS
from tests import toy

CONFIGS = {
    "five tasks": toy.config(rotary_emb_base=12345.0, lora_alpha=3.0, torch_dtype="bfloat16"),
    "no tasks, no pooler": toy.config(lora_adaptations=(), task_instructions={}, pooler=False, torch_dtype="bfloat16"),
    "JinaBERT": toy.jinabert_config(torch_dtype="bfloat16"),
    "JinaBERT qk-post-norm": toy.jinabert_config(
        qk_post_norm=True, feed_forward_type="reglu", pooler=False, bos_token_id=None, torch_dtype="bfloat16"
    ),
}
WAYS = [
    pytest.param(config, *way, id=f"{name}, {'-'.join(way)}")
    for name, config in CONFIGS.items()
    for way in permutations([layout for layout in LAYOUTS if LAYOUTS[layout].holds(config)], 2)
]


def bits(config: ModelConfig) -> dict[str, torch.Tensor]:
    """bfloat16 tensors with odd values among them: signed zero, subnormals, infinity."""
    state = {name: tensor.bfloat16() for name, tensor in toy.encoder(config).state_dict().items()}
    state["embeddings.norm.bias"][:3] = torch.tensor([-0.0, 1e-40, float("inf")])
    return state


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Same names, dtypes and bits."""
    return set(a) == set(b) and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].view(torch.int16), b[name].view(torch.int16))
        for name in a
    )


@pytest.mark.parametrize(("config", "first", "second"), WAYS)
def test_there_and_back(config: ModelConfig, first: str, second: str, tmp_path: Path) -> None:
    """Config and bits survive first -> second -> first, in one file or in shards."""
    state = bits(config)
    write(tmp_path / "a", config, state, layout=first)
    convert(tmp_path / "a", tmp_path / "b", layout=second, max_shard_bytes=4000)
    convert(tmp_path / "b", tmp_path / "c", layout=first)
    assert [detect_layout(tmp_path / name) for name in "abc"] == [first, second, first]
    for name in "abc":
        found_config, found = read(tmp_path / name)
        assert found_config == config
        assert same_bits(found, state)
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "c" / "config.json").read_bytes()
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "c" / "model.safetensors").read_bytes()
