"""What tests of several files stand on: a tiny random checkpoint with a real tokenizer; the kernels of this checkout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from safetensors.torch import save_file

from fivefold import kernels
from hatch_build import compile_kernels
from tests import toy

WARNINGS = ("-Wall", "-Wextra", "-Werror")

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


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The library as this checkout's sources make it, where a compiler and the processor let it."""
    path = tmp_path_factory.mktemp("kernels") / "libfivefold.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "LIBRARY", path)
        if lack := compile_kernels(path, flags=WARNINGS) or kernels.lack_of_kernels():
            assert "compiler failed" not in lack, lack
            pytest.skip(lack)
        yield path


@pytest.fixture(params=["avx512", "avx2"])
def vectors(library: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """With AVX-512, where the processor has it, and with AVX2."""
    opened = kernels.Kernels()
    if opened.use_wide(request.param == "avx512") is not (request.param == "avx512"):
        pytest.skip("the processor has no AVX-512 VNNI")
    yield request.param
    opened.use_wide(True)


@pytest.fixture
def threads() -> Iterator[None]:
    """Tests may change how many threads torch has."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
