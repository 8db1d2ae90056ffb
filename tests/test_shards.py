"""Files: sharded and whole, cut short, pickled, or pointing astray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fivefold.errors import CheckpointError, MissingFileError, TensorError
from fivefold.shards import INDEX_FILE, MODEL_FILE, open_model, write_shards

TENSORS = {name: torch.arange(12.0).reshape(3, 4) + i for i, name in enumerate("abcde")}  # 48 bytes each


def test_shards_stay_within_their_limit_and_read_as_one(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS, max_shard_bytes=100)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert json.loads((tmp_path / INDEX_FILE).read_text())["metadata"]["total_size"] == 5 * 48
    shards = open_model(tmp_path)
    assert shards.names() == set(TENSORS)
    assert all(torch.equal(shards.get(name), tensor) for name, tensor in TENSORS.items())


def test_views_and_shared_tensors_are_written_whole(tmp_path: Path) -> None:
    """Rows of one tensor, a transposed one, and one tensor under two names."""
    whole = torch.arange(24.0).reshape(4, 6)
    views = {"rows": whole[1:3], "transposed": whole.T, "again": whole, "once more": whole}
    write_shards(tmp_path, views, max_shard_bytes=10**6)
    shards = open_model(tmp_path)
    assert all(torch.equal(shards.get(name), view) for name, view in views.items())
    assert (tmp_path / MODEL_FILE).stat().st_size < 10_000


@pytest.mark.parametrize("keep", [0, 3, 40, -1])
def test_a_file_cut_short_is_named(keep: int, tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS, max_shard_bytes=10**6)
    path = tmp_path / MODEL_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TensorError, match="model.safetensors is not a whole safetensors file"):
        open_model(tmp_path)


def test_parts_have_files_of_their_own(tmp_path: Path) -> None:
    first = next(iter(TENSORS))
    for folder, tensors in ((tmp_path / "a", TENSORS), (tmp_path / "b", TENSORS | {first: TENSORS[first] + 1})):
        folder.mkdir()
        write_shards(folder, tensors, max_shard_bytes=10**6, part_of=lambda name: "first" if name == first else "rest")
    one, other = (sorted((tmp_path / name).glob("*.safetensors")) for name in "ab")
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(one, other, strict=True)] == [False, True]
    assert open_model(tmp_path / "a").names() == set(TENSORS)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS, max_shard_bytes=100)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(MissingFileError, match="model-00002-of-00003.safetensors does not exist"):
        open_model(tmp_path)


def edit_index(folder: Path, **changes: str) -> None:
    index = json.loads((folder / INDEX_FILE).read_text())
    index["weight_map"].update(changes)
    (folder / INDEX_FILE).write_text(json.dumps(index))


def test_an_index_that_does_not_fit_its_files(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS, max_shard_bytes=100)
    edit_index(tmp_path, a="model-00003-of-00003.safetensors")
    with pytest.raises(TensorError, match="'a' is missing from .*model-00003"):
        open_model(tmp_path)


def test_an_index_never_leads_out_of_its_folder(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS, max_shard_bytes=100)
    edit_index(tmp_path, a="../outside.safetensors")
    with pytest.raises(CheckpointError, match="points outside its folder"):
        open_model(tmp_path)


def test_tensors_that_the_index_does_not_list(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS, max_shard_bytes=100)
    save_file({"e": TENSORS["e"], "f": TENSORS["a"]}, tmp_path / "model-00003-of-00003.safetensors")
    with pytest.raises(TensorError, match="'f' in .* is left over"):
        open_model(tmp_path)


@pytest.mark.parametrize("content", ["not json", "[]", "{}", '{"weight_map": [1]}'])
def test_an_index_that_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / INDEX_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=INDEX_FILE):
        open_model(tmp_path)


def test_the_same_tensor_in_two_files(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS, max_shard_bytes=100)
    save_file({"e": TENSORS["e"], "a": TENSORS["a"]}, tmp_path / "model-00003-of-00003.safetensors")
    with pytest.raises(TensorError, match="'a' is in .* and again in"):
        open_model(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    """The error says how to convert them, and nothing in the file runs."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model.bin\).*save_file as model.safetensors"):
        open_model(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="holds no model.safetensors"):
        open_model(tmp_path)


def test_files_have_the_mode_of_any_new_file(tmp_path: Path) -> None:
    """Others may read a model where they may read the user's other files."""
    (tmp_path / "plain").touch()
    write_shards(tmp_path, TENSORS, max_shard_bytes=10**6)
    assert (tmp_path / MODEL_FILE).stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the mappings of this process from proc")
def test_pages_of_dropped_tensors_leave_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once enough was read, the old mapping lasts only as long as a tensor in it is held."""
    monkeypatch.setattr("fivefold.shards.REOPEN_BYTES", 100)
    write_shards(tmp_path, TENSORS, max_shard_bytes=10**6)
    shards = open_model(tmp_path)

    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path / MODEL_FILE))

    held = shards.get("a")
    shards.get("b"), shards.get("c"), shards.get("d")
    assert mappings() == 2
    assert torch.equal(held, TENSORS["a"])
    del held
    assert mappings() == 1
