"""commands/info.py: the facts of a model folder, against the model when it is loaded."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from fivefold.checkpoint import read, write
from fivefold.commands import info
from fivefold.commands.info import describe
from fivefold.errors import CheckpointError
from tests import toy


@pytest.mark.parametrize("quantize", [None, "int8", "codebook-words"])
def test_parameters_are_the_models_in_whichever_bits_they_are_stored(quantize: str | None, tmp_path: Path) -> None:
    """Scales and books are none, and a code of a book is three: the shipped model would have lost most of its words."""
    encoder = toy.encoder(toy.config(hidden_size=48))
    write(tmp_path, encoder.config, encoder.state_dict(), quantize=quantize, part_of=lambda name: name.split(".")[0])
    _, tensors = read(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert describe("toy", tmp_path)["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(p.numel() for p in encoder.state_dict().values())


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (b"---\nlicense: apache-2.0\n---\n# Card\n", "apache-2.0"),
        (b"\xef\xbb\xbf---\r\ntags: [a]\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        (b'---\nlicense: "cc-by-nc-4.0"  # not for sale\n---\n', "cc-by-nc-4.0"),
        (b"---\nlicense: mit\nauthor: J\xfcrgen\n---\n", "mit"),
        (b"---\ntags: [a]\n---\nCite as:\n\n---\nlicense: mit\n---\n", None),
        (b"# Card\nlicense: mit\n", None),
        (b"---\nlicense: mit\n", None),
        (b"---\nlicense:\ntags: x\n---\n", None),
        (b"---\nlicense: \n  - mit\n---\n", None),
        (b"---\nlicense: Apache License 2.0 \nlicense_name: x\n---\n", "Apache License 2.0"),
        (b"---\nlicense_name: 'llama 9'\nlicense: other\n---\n", "llama 9"),
        (b"---\nlicense: other\n---\n", "other"),
        (b"---\nlicense: mit\nlicense: other\nlicense_name: x\n---\n", "mit"),
        (b"---\nlicense_name: x\n---\n", None),
        (b"", None),
        (None, None),
    ],
)
def test_a_licence_is_what_the_front_matter_of_the_card_says(
    card: bytes | None, licence: str | None, tiny_folder: Path, tmp_path: Path
) -> None:
    """And not what a text in the card quotes; nobody should take a model for free that is not said to be."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "README.md").unlink()
    if card is not None:
        (folder / "README.md").write_bytes(card)
    assert describe("m", folder)["licence"] == (licence or "not stated in the model's folder")


def test_weights_that_are_cut_short_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    data = (folder / "model.safetensors").read_bytes()
    for size in (0, 7, 100, len(data) - 1):
        (folder / "model.safetensors").write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable safetensors file .*again"):
            describe("m", folder)


def test_a_page_has_every_fact_in_a_form_for_people(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    sizes = {"a.bin": 999, "b.bin": 1000, "c.bin": 999_949, "d.bin": 999_950, "e.bin": 1_500_000}
    for name, size in sizes.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
    options = {
        "model": str(folder),
        "revision": None,
        "offline": True,
        "accept_license": False,
        "local_files_only": True,
    }
    info.run(Namespace(**options, json=False))
    lines = capsys.readouterr().out.splitlines()
    page = {line[:22].strip(): line[22:] for line in lines}
    assert [page[name] for name in sizes] == ["999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.5 MB"]
    info.run(Namespace(**options, json=True))
    facts = json.loads(capsys.readouterr().out)
    assert page["parameters"] == f"{facts['parameters']:,}" and page["matryoshka dimensions"] == "8, 16, 32"
    assert {task: page[task] for task in facts["tasks"]} == {
        task: prompt.strip() or "(no prompt)" for task, prompt in facts["tasks"].items()
    }
    assert facts["files"].keys() == {path.name for path in folder.iterdir()}
