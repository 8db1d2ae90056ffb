"""The graph against the torch encoder, in ONNX Runtime alone, as somebody else would run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.config import NO_TASK
from fivefold.errors import CheckpointError
from fivefold.export.graph import write_graph
from fivefold.model import Encoder
from fivefold.packing import pack
from tests import toy

Array = npt.NDArray[np.generic]
ATOL = 1e-4
TASKS = (*range(5), NO_TASK)
MIXED = [(task, list(range(5 + task, 30 - 3 * task))) for task in TASKS]
"""One row for each task and one for none, all of other lengths."""
CLEAR_REFS = Path("/proc/self/clear_refs")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return toy.encoder()


@pytest.fixture(scope="module")
def graphs(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    paths = {name: folder / f"{name}.onnx" for name in ("float32", "int8")}
    for name, path in paths.items():
        write_graph(encoder, path, int8=name == "int8")
    return paths


@pytest.fixture(scope="module")
def sessions(graphs: dict[str, Path]) -> dict[str, onnxruntime.InferenceSession]:
    return {name: onnxruntime.InferenceSession(path) for name, path in graphs.items()}


def expected(encoder: Encoder, rows: list[tuple[int, list[int]]]) -> list[Array]:
    batch = pack([toy.sequence(ids, task) for task, ids in rows])
    return [states.numpy() for states in encoder(batch).split(batch.seqlens)]


def run(session: onnxruntime.InferenceSession, rows: list[tuple[int, list[int]]], *, left: bool = False) -> list[Array]:
    """States of each row without its padding, which lies right, or left."""
    length = max(len(ids) for _, ids in rows)
    places = [slice(length - len(ids), None) if left else slice(len(ids)) for _, ids in rows]
    ids, mask = np.full((len(rows), length), 1), np.zeros((len(rows), length), np.int64)
    for n, (place, (_, row)) in enumerate(zip(places, rows, strict=True)):
        ids[n, place], mask[n, place] = row, 1
    inputs = {"input_ids": ids, "attention_mask": mask, "task_id": np.array([task for task, _ in rows])}
    (states,) = session.run(None, inputs)
    return [states[n, place] for n, place in enumerate(places)]


def assert_close(found: list[Array], wanted: list[Array], atol: float = ATOL) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def cosines(found: list[Array], wanted: list[Array]) -> Array:
    a, b = np.concatenate(found), np.concatenate(wanted)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("left", [False, True])
def test_all_tasks_in_one_batch(encoder: Encoder, sessions: dict, left: bool) -> None:
    assert_close(run(sessions["float32"], MIXED, left=left), expected(encoder, MIXED))


def test_tasks_differ(sessions: dict) -> None:
    """Else a graph that ignored the task would pass."""
    rows = run(sessions["float32"], [(task, [0, 7, 8, 9, 2]) for task in TASKS])
    assert min(np.abs(a - b).max() for n, a in enumerate(rows) for b in rows[:n]) > 0.1


@given(st.lists(st.tuples(st.sampled_from(TASKS), st.lists(st.integers(0, 399), min_size=1, max_size=64)), min_size=1))
@settings(max_examples=20)
def test_any_batch(encoder: Encoder, sessions: dict, rows: list[tuple[int, list[int]]]) -> None:
    assert_close(run(sessions["float32"], rows), expected(encoder, rows))


def test_8_bits_are_close(encoder: Encoder, sessions: dict) -> None:
    """Random states of 32 dimensions, whose errors average out far less than those of a trained model."""
    found, wanted = run(sessions["int8"], MIXED), expected(encoder, MIXED)
    assert cosines(found, wanted).min() > 0.995
    assert max(np.abs(a - b).max() for a, b in zip(found, wanted, strict=True)) > 1e-3, "these are not 8 bits"


def test_in_8_bits_no_row_sees_its_neighbours(sessions: dict) -> None:
    """A scale of the whole batch would move every token. What a library adds up in another order among neighbours may put an
    input on the other side of a rounding, so that one code moves and its token with it."""
    alone = np.concatenate([run(sessions["int8"], [row])[0] for row in MIXED])
    moved = np.abs(np.concatenate(run(sessions["int8"], MIXED)) - alone).max(1)
    assert (moved < 1e-5).mean() > 0.9 and moved.max() < 0.05


def test_adapters_stay_float32(graphs: dict[str, Path]) -> None:
    """And every other matrix is stored in 8 bits."""
    model = onnx.load(graphs["int8"], load_external_data=False)
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer}
    adapters = {name for name in kinds if "lora" in name}
    assert {kinds[name] for name in adapters} == {onnx.TensorProto.FLOAT} and len(adapters) == 2 * (1 + 2 * 4)
    codes = [kind for name, kind in kinds.items() if name.endswith(".codes")]
    assert sorted(codes) == [onnx.TensorProto.UINT8] * 8 + [onnx.TensorProto.INT8]
    assert not [name for name in kinds if name.endswith("attention.Wqkv.weight") or name == "words.weight"]


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_the_graph_is_valid_and_says_its_inputs(graphs: dict[str, Path], sessions: dict, name: str) -> None:
    onnx.checker.check_model(graphs[name])
    inputs = {value.name: (value.type, value.shape) for value in sessions[name].get_inputs()}
    assert inputs == {
        "input_ids": ("tensor(int64)", ["batch", "length"]),
        "attention_mask": ("tensor(int64)", ["batch", "length"]),
        "task_id": ("tensor(int64)", ["batch"]),
    }
    (states,) = sessions[name].get_outputs()
    assert (states.name, states.type, states.shape) == ("last_hidden_state", "tensor(float)", ["batch", "length", 32])


def test_weights_lie_beside_the_graph(graphs: dict[str, Path]) -> None:
    """Aligned, so that there is no limit of 2 GB; no float is left in the graph itself."""
    model = onnx.load(graphs["float32"], load_external_data=False)
    outside = [w for w in model.graph.initializer if w.data_location == onnx.TensorProto.EXTERNAL]
    assert {w.data_type for w in model.graph.initializer if w not in outside} == {onnx.TensorProto.INT64}
    places = [{entry.key: entry.value for entry in w.external_data} for w in outside]
    assert {place["location"] for place in places} == {"float32.onnx_data"}
    assert not [place for place in places if int(place["offset"]) % 64]


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="peak memory is read the way Linux tells it")
def test_a_long_row_alone_needs_little_memory(tmp_path: Path) -> None:
    """The scores of its 4 heads would be 268 MB; the kernel without mask never forms them."""
    write_graph(toy.encoder(toy.config(max_position_embeddings=4096)), tmp_path / "long.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "long.onnx")
    CLEAR_REFS.write_text("5")  # the peak begins anew
    before = peak_bytes()
    (states,) = run(session, [(0, [7] * 4096)])
    assert np.isfinite(states).all()
    assert peak_bytes() - before < 100e6


def peak_bytes() -> int:
    return 1024 * int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0])


@pytest.mark.parametrize("task", ["classification", None])
def test_a_merged_model_has_no_task_input(tmp_path: Path, task: str | None) -> None:
    encoder, merged = toy.encoder(), toy.encoder()
    merged.merge(task)
    write_graph(merged, tmp_path / "merged.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "merged.onnx")
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]
    ids = np.array([[0, 7, 8, 9, 2]])
    (states,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    (wanted,) = expected(encoder, [(encoder.config.task_id(task), ids[0].tolist())])
    np.testing.assert_allclose(states[0], wanted, atol=ATOL)


def test_token_types_of_a_model_with_several(tmp_path: Path) -> None:
    """Only type 0 is ever used."""
    encoder = toy.encoder(toy.config(type_vocab_size=2))
    write_graph(encoder, tmp_path / "types.onnx")
    assert_close(run(onnxruntime.InferenceSession(tmp_path / "types.onnx"), MIXED), expected(encoder, MIXED))


def test_the_older_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="JinaBERT"):
        write_graph(toy.encoder(toy.jinabert_config()), tmp_path / "model.onnx")
