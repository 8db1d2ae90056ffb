"""`fivefold export`, and `--backend onnx` of the others."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fivefold import Embedder
from fivefold.cli import main
from fivefold.embedder import BACKENDS as KNOWN
from fivefold.options import BACKENDS

TASK = "retrieval.query"


def test_the_options_name_what_there_is() -> None:
    assert tuple(KNOWN) == BACKENDS


def test_export_then_embed(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, source = str(tmp_path / "m"), tmp_path / "rows.lines"
    source.write_text("a fox\nder Hund\n", encoding="utf-8")
    assert main(["export", "onnx", str(tiny_folder), folder, "--task", TASK]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: onnx graph, 5 files, ")
    assert main(["embed", str(source), "--model", folder, "--backend", "onnx", "--task", TASK]) == 0
    found = [json.loads(line)["embedding"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(found, Embedder.load(tiny_folder).encode(["a fox", "der Hund"], task=TASK), atol=1e-4)


@pytest.mark.parametrize(("options", "tasks"), [((), 5), (("--int8",), 5), (("--task", "none", "--int8"), 0)])
def test_what_is_in_the_graph(tiny_folder: Path, tmp_path: Path, options: tuple[str, ...], tasks: int) -> None:
    assert main(["export", "onnx", str(tiny_folder), str(tmp_path / "m"), *options]) == 0
    assert len(Embedder.load(tmp_path / "m", backend="onnx").tasks) == tasks
    assert (b"MatMulNBits" in (tmp_path / "m" / "model.onnx").read_bytes()) == ("--int8" in options)


def test_errors_are_one_line(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert main(["export", "onnx", str(tiny_folder), str(tmp_path)]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert main(["export", "onnx", str(tiny_folder), str(tmp_path / "m"), "--task", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("fivefold: unknown task 'nonsense'")


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_without_the_extra(
    tiny_folder: Path, tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("fivefold.export", "fivefold.commands.export"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    wanted = f"fivefold: ONNX needs {library}: pip install 'fivefold[onnx]'\n"
    assert main(["export", "onnx", str(tiny_folder), str(tmp_path / "m")]) == 2
    assert capsys.readouterr().err == wanted
    assert main(["similarity", "a", "b", "--model", str(tiny_folder), "--backend", "onnx"]) == 2
    assert capsys.readouterr().err == wanted
