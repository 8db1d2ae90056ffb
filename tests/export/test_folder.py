"""Folders that the export writes: merged tasks, 8 bits, what lies beside the graph."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fivefold import CheckpointError, Embedder, InputError, UnknownTaskError
from fivefold.config import TASKS, ModelConfig
from fivefold.export.folder import export_onnx, export_onnx_merged
from fivefold.layouts import tensor_shapes
from tests import toy

NANO = Path(__file__).parent.parent.parent / "fivefold" / "models" / "v3-nano"
TEXTS = [text[:24] for text in toy.TEXTS]  # short enough for the toy with any prompt


def loaded(folder: Path) -> Embedder:
    return Embedder.load(folder, backend="onnx")


def test_files(tiny_folder: Path, tmp_path: Path) -> None:
    """Everything that `Embedder.load` reads, and the card with the licence."""
    export_onnx(tiny_folder, tmp_path / "m")
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"model.onnx", "model.onnx_data", "config.json", "tokenizer.json", "README.md"}


@pytest.mark.parametrize("task", ["retrieval.query", "separation"])
def test_one_task_alone(tiny_folder: Path, tmp_path: Path, task: str) -> None:
    """With its prompt, equal to routing; every other task is refused, no adapter among them."""
    export_onnx_merged(tiny_folder, tmp_path / "m", task=task)
    embedder = loaded(tmp_path / "m")
    assert embedder.tasks == (task,)
    wanted = Embedder.load(tiny_folder).encode(TEXTS, task=task)
    np.testing.assert_allclose(embedder.encode(TEXTS, task=task), wanted, atol=1e-4)
    with pytest.raises(InputError, match=f"cannot do the task None, only: '{task}'"):
        embedder.encode("fox")
    with pytest.raises(UnknownTaskError, match="unknown task 'classification'"):
        embedder.encode("fox", task="classification")


def test_the_body_alone(tiny_folder: Path, tmp_path: Path) -> None:
    export_onnx_merged(tiny_folder, tmp_path / "m", task=None)
    embedder = loaded(tmp_path / "m")
    assert embedder.tasks == ()
    np.testing.assert_allclose(embedder.encode(TEXTS), Embedder.load(tiny_folder).encode(TEXTS), atol=1e-4)


@pytest.mark.skipif(not NANO.is_dir(), reason="this checkout came without v3-nano")
def test_v3_nano_in_8_bits(tmp_path: Path) -> None:
    """Within the accuracy asked of 8 bits on a CPU, in little more than a quarter of the size."""
    export_onnx(NANO, tmp_path / "m", int8=True)
    float32 = 4 * sum(math.prod(shape) for shape in tensor_shapes(ModelConfig.from_folder(NANO)).values())
    assert (tmp_path / "m" / "model.onnx_data").stat().st_size < 0.28 * float32
    tasks = [TASKS[n % 5].name for n in range(len(TEXTS))]
    found, wanted = (model.encode(TEXTS, task=tasks) for model in (loaded(tmp_path / "m"), Embedder.load(NANO)))
    cosines = (found * wanted).sum(axis=1)
    assert cosines.mean() >= 0.995 and cosines.min() >= 0.98


def test_files_of_two_models(tiny_folder: Path, tmp_path: Path) -> None:
    """A graph without `task_id` beside a config of five tasks, and the other way round."""
    export_onnx(tiny_folder, tmp_path / "all")
    export_onnx_merged(tiny_folder, tmp_path / "none", task=None)
    for source, target, count in (("none", "all", 0), ("all", "none", 5)):
        folder = tmp_path / f"{source}-config"
        folder.mkdir()
        for path in (tmp_path / target).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "config.json").write_bytes((tmp_path / source / "config.json").read_bytes())
        with pytest.raises(CheckpointError, match=f"lists {count} tasks in lora_adaptations, but the graph"):
            loaded(folder)


def test_nothing_is_overwritten_and_nothing_half_written(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine").write_text("kept")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        export_onnx(tiny_folder, tmp_path / "m")
    with pytest.raises(UnknownTaskError):
        export_onnx_merged(tiny_folder, tmp_path / "n", task="nonsense")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
