"""ONNX Runtime behind the `Backend` seam: whatever an `Embedder` does on torch it does on a graph."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fivefold import CheckpointError, Embedder, InputError, TruncationWarning
from fivefold.checkpoint import convert
from fivefold.config import TASKS
from fivefold.export.folder import export_onnx
from fivefold.export.runtime import FULLNESS, OnnxBackend
from fivefold.packing import pack
from tests import toy

ATOL = 1e-4
NAMES = tuple(task.name for task in TASKS)
TEXTS = [text[:24] for text in toy.TEXTS]  # short enough for the toy with any prompt
MIXED = [(*NAMES, None)[n % 6] for n in range(len(TEXTS))]
NANO = Path(__file__).parent.parent.parent / "fivefold" / "models" / "v3-nano"


@pytest.fixture(scope="module")
def torch_embedder(tiny_folder: Path) -> Embedder:
    return Embedder.load(tiny_folder)


@pytest.fixture(scope="module")
def embedder(tiny_folder: Path) -> Embedder:
    return Embedder.load(tiny_folder, backend="onnx")


@pytest.fixture(scope="module")
def published(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the original layout with a graph of the published form in `onnx/`."""
    folder = tmp_path_factory.mktemp("published")
    convert(tiny_folder, folder, layout="jina")
    export_onnx(tiny_folder, folder / "onnx")
    as_published(folder / "onnx" / "model.onnx", shape=[])
    return folder


def as_published(path: Path, shape: list[int]) -> None:
    """Turn one of our graphs into one with a single `task_id`, the published name of the states, and a pooler's output."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["each_task_id" if name == "task_id" else name for name in node.input]
        node.output[:] = ["text_embeds" if name == "last_hidden_state" else name for name in node.output]
    task_id = next(value for value in graph.input if value.name == "task_id")
    task_id.CopyFrom(helper.make_tensor_value_info("task_id", TensorProto.INT64, shape))
    graph.output[0].name = "text_embeds"
    graph.output.append(helper.make_tensor_value_info("13049", TensorProto.FLOAT, ["batch", 32]))
    spread = [
        helper.make_node("Shape", ["input_ids"], ["rows"], end=1),
        helper.make_node("Expand", ["task_id", "rows"], ["each_task_id"]),
    ]
    nodes = [
        *spread,
        *graph.node,
        helper.make_node("ReduceMean", ["text_embeds", "middle_axis"], ["13049"], keepdims=0),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def encode(embedder: Embedder) -> np.ndarray:
    return embedder.encode(TEXTS, task=MIXED)


def document_chunks(embedder: Embedder) -> np.ndarray:
    """Longer than the model, so that it is read in windows."""
    return embedder.encode_chunks(" ".join(toy.TEXTS), chunk_tokens=12, overlap=8).vectors


USES: dict[str, Callable[[Embedder], np.ndarray]] = {
    "mixed tasks": encode,
    "one string": lambda e: e.encode("fox", task="separation"),
    "nothing": lambda e: e.encode([]),
    "queries, cut": lambda e: e.encode_query(TEXTS, truncate_dim=8),
    "documents, raw": lambda e: e.encode_document(TEXTS, normalize=False),
    "late chunks": document_chunks,
    "tokens": lambda e: np.concatenate([t.vectors for t in e.encode_tokens(TEXTS[:3], task=list(NAMES[:3]))]),
}


@pytest.mark.parametrize("use", USES)
def test_everything_equals_torch(embedder: Embedder, torch_embedder: Embedder, use: str) -> None:
    np.testing.assert_allclose(USES[use](embedder), USES[use](torch_embedder), atol=ATOL)


def test_cutting_warns_as_ever(embedder: Embedder, torch_embedder: Embedder) -> None:
    with pytest.warns(TruncationWarning):
        found = embedder.encode(TEXTS, max_length=10)
    with pytest.warns(TruncationWarning):
        np.testing.assert_allclose(found, torch_embedder.encode(TEXTS, max_length=10), atol=ATOL)


def test_what_the_model_is(embedder: Embedder, torch_embedder: Embedder) -> None:
    assert isinstance(embedder.backend, OnnxBackend)
    assert (embedder.tasks, embedder.dimensions) == (torch_embedder.tasks, 32)


def test_an_exported_folder_equals_torch(tiny_folder: Path, torch_embedder: Embedder, tmp_path: Path) -> None:
    export_onnx(tiny_folder, tmp_path / "m")
    np.testing.assert_allclose(encode(Embedder.load(tmp_path / "m", backend="onnx")), encode(torch_embedder), atol=ATOL)


@pytest.mark.skipif(not NANO.is_dir(), reason="this checkout came without v3-nano")
def test_v3_nano_equals_torch() -> None:
    """Raw means of real weights."""
    found, wanted = (
        Embedder.load(NANO, backend=backend).encode(TEXTS, task=MIXED, normalize=False) for backend in ("onnx", "torch")
    )
    np.testing.assert_allclose(found, wanted, atol=ATOL)


@pytest.mark.parametrize("shape", [[], [1]])
def test_the_published_form(tiny_folder: Path, torch_embedder: Embedder, tmp_path: Path, shape: list[int]) -> None:
    """One task for all rows: mixed tasks run apart and come back in order."""
    export_onnx(tiny_folder, tmp_path / "m")
    as_published(tmp_path / "m" / "model.onnx", shape)
    embedder = Embedder.load(tmp_path / "m", backend="onnx")
    tasks = [name or "separation" for name in MIXED]
    wanted = torch_embedder.encode(TEXTS, task=tasks)
    np.testing.assert_allclose(embedder.encode(TEXTS, task=tasks), wanted, atol=ATOL)


def test_the_published_folder(published: Path, torch_embedder: Embedder) -> None:
    """Its graph lies in `onnx/`, and always applies an adapter: no text without a task."""
    embedder = Embedder.load(published, backend="onnx")
    wanted = torch_embedder.encode_query(TEXTS)
    np.testing.assert_allclose(embedder.encode_query(TEXTS), wanted, atol=ATOL)
    with pytest.raises(InputError, match=r"cannot do the task None, only: 'retrieval.query', .*backend='torch'"):
        embedder.encode(["a", "b"], task=["separation", None])


def test_little_is_padding(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all lengths and tasks in one pack: few runs, each nearly full."""
    backend = embedder.backend
    assert isinstance(backend, OnnxBackend)
    session, sizes = backend.session, []

    class Counting:
        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            sizes.append(inputs["input_ids"].size)
            return session.run(names, inputs)

    monkeypatch.setattr(backend, "session", Counting())
    rows = [toy.sequence([5] * n, n % 6 - 1) for n in range(1, 65)]
    backend.hidden_states(pack(rows))
    assert sum(sizes) <= sum(len(row) for row in rows) / FULLNESS
    assert len(sizes) <= 12


def test_many_threads_share_one_session(embedder: Embedder) -> None:
    expected = {task: embedder.encode(TEXTS[:3], task=task) for task in NAMES}
    with ThreadPoolExecutor(4) as pool:
        for task, found in zip(
            NAMES * 4, pool.map(lambda t: embedder.encode(TEXTS[:3], task=t), NAMES * 4), strict=True
        ):
            np.testing.assert_allclose(found, expected[task], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "onyx"}, "unknown backend 'onyx'; choose one of: torch, onnx"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "in the precision of its graph: leave device and dtype out"),
        ({"backend": "onnx", "device": "meta"}, "runs on a CPU"),
    ],
)
def test_bad_arguments(tiny_folder: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Embedder.load(tiny_folder, **arguments)  # type: ignore[arg-type]


def damage_bytes(path: Path) -> None:
    path.write_bytes(b"not a graph")


def lose_weights(path: Path) -> None:
    path.with_name("model.onnx_data").unlink()


def take_images(path: Path) -> None:
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Identity", ["pixels"], ["out"])], "images", [pixels], [out])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage_bytes, f"model.onnx cannot be run by ONNX Runtime {onnxruntime.__version__}: fetch or write it again"),
        (lose_weights, "cannot be run by ONNX Runtime"),
        (take_images, r"makes out \['batch', 3\] of pixels; a graph of this model makes states of every token"),
    ],
)
def test_a_graph_of_something_else(
    tiny_folder: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    export_onnx(tiny_folder, tmp_path / "m")
    change(tmp_path / "m" / "model.onnx")
    with pytest.raises(CheckpointError, match=message):
        Embedder.load(tmp_path / "m", backend="onnx")
