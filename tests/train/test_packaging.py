"""train/packaging.py: adapters of the families in one model, and files that change only with what is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from fivefold.checkpoint import read
from fivefold.commands.info import describe
from fivefold.errors import FivefoldError
from fivefold.layouts import is_bank
from fivefold.train.families import FAMILIES
from fivefold.train.packaging import SOURCES, stack_adapters, write_package
from tests import toy
from tests.train import toys

TASKS = [task for family in FAMILIES.values() for task in family.tasks]


@given(st.permutations(TASKS), st.permutations(TASKS), st.lists(st.integers(1, 4), max_size=4))
def test_every_task_has_its_own_row_however_families_and_configuration_order_them(
    order: list[str], grouped: list[str], cuts: list[int]
) -> None:
    """Two tasks of one family too: queries and passages would change places, and nothing else would tell."""
    places = [0, *sorted(set(cuts)), len(grouped)]
    groups = {tuple(grouped[a:b]): {} for a, b in zip(places, places[1:], strict=False)}
    for tasks, banks in groups.items():
        for number, name in enumerate(("one.lora_A", "two.lora_B")):
            banks[name] = torch.tensor([[10.0 * TASKS.index(task) + number] for task in tasks])
    config = toy.config(lora_adaptations=tuple(order), task_instructions={})
    found = stack_adapters(config, groups)
    assert {name: bank[:, 0].tolist() for name, bank in found.items()} == {
        "one.lora_A": [10.0 * TASKS.index(task) for task in order],
        "two.lora_B": [10.0 * TASKS.index(task) + 1 for task in order],
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working folder whose adapters differ by task."""
    encoder, tokenizer = toys.student()
    folder = tmp_path / "work"
    folder.mkdir()
    state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file({name: tensor for name, tensor in state.items() if not is_bank(name)}, folder / "body.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(encoder.config.to_dict()))
    (folder / SOURCES).write_text("[]")
    for name, family in FAMILIES.items():
        torch.manual_seed(len(name))
        shapes = {k: v[: len(family.tasks)] for k, v in state.items() if is_bank(k)}
        save_file({k: torch.randn_like(v) for k, v in shapes.items()}, folder / f"adapters-{name}.safetensors")
    return folder


def package(work: Path, target: Path) -> dict[str, bytes]:
    """Its files by name."""
    write_package(work, work / "body.safetensors", target, updates={"distil": 5}, longest=9)
    return {path.name: path.read_bytes() for path in target.iterdir()}


def change(path: Path, name: str) -> None:
    tensors: dict[str, Tensor] = load_file(path)
    save_file({**tensors, name: tensors[name] * 1.5}, path)


@pytest.mark.parametrize(
    ("file", "tensor"),
    [
        ("adapters-separation.safetensors", "layers.0.mlp.fc1.lora_A"),
        ("body.safetensors", "layers.0.mlp.fc1.weight"),
        ("body.safetensors", "embeddings.word_embeddings.weight"),
    ],
    ids=["adapters", "body", "words"],
)
def test_a_new_version_of_one_part_leaves_the_files_of_the_others(
    file: str, tensor: str, work: Path, tmp_path: Path
) -> None:
    """Who has the old version fetches, and a repository keeps, one file more and not three."""
    before = package(work, tmp_path / "before")
    assert package(work, tmp_path / "again") == before
    change(work / file, tensor)
    after = package(work, tmp_path / "after")
    assert after.keys() == before.keys() and len([name for name in before if name.endswith(".safetensors")]) == 3
    assert len([name for name in before if after[name] != before[name]]) == 1


def test_adapters_are_kept_to_16_bits_and_the_folder_says_what_it_is(work: Path, tmp_path: Path) -> None:
    package(work, tmp_path / "package")
    config, tensors = read(tmp_path / "package")
    for name, family in FAMILIES.items():
        rows = [config.task_id(task) for task in family.tasks]
        for bank, values in load_file(work / f"adapters-{name}.safetensors").items():
            assert torch.equal(tensors[bank][rows].float(), values.half().float()), (name, bank)
    assert describe("toy", tmp_path / "package")["licence"] == "apache-2.0"


def test_a_folder_that_is_there_is_left_alone(work: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    with pytest.raises(FivefoldError, match="full.*not an empty folder"):
        package(work, tmp_path / "full")
    assert [(path.name, path.read_text()) for path in (tmp_path / "full").iterdir()] == [("README.md", "mine")]
