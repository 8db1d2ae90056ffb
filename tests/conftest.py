"""A tiny random checkpoint in our own layout, with a real tokenizer: what tests of the command line stand on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import settings
from safetensors.torch import save_file

from tests import toy

# Speed is measured in bench/; a test that is slow on a busy machine is still right.
settings.register_profile("fivefold", deadline=None)
settings.load_profile("fivefold")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tasks, two layers, 32 dimensions, 64 positions, random weights. Do not write into it."""
    folder = tmp_path_factory.mktemp("tiny")
    config = toy.config()
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    save_file({k: v.contiguous() for k, v in toy.encoder(config).state_dict().items()}, folder / "model.safetensors")
    toy.rust_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nRandom weights.\n", encoding="utf-8")
    return folder
