"""Safetensors files as one mapping of names to tensors: opened memory-mapped, checked, written in shards.

Knows nothing of configs. `check_tensors` holds a file's header against what is expected of it, before any tensor is
read, and names the first that is missing, left over, misshapen or of a wrong type. A file is never unpickled: where only
pickled weights lie, the error says how to convert them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fivefold.compact import Compact
from fivefold.errors import CheckpointError, MissingFileError, TensorError
from fivefold.layouts import HEADS, Form, Place, Shapes

MODEL_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_FILE = "adapter_model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


REOPEN_BYTES = 64 * 2**20
"""After so many bytes a file is mapped anew, so that pages of tensors nobody holds any more leave memory."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file's header says of one tensor."""

    path: Path
    shape: tuple[int, ...]
    dtype: str


class Shards:
    """The tensors of one file or of several, by name; nothing but headers is read before it is asked for."""

    def __init__(self, where: Path, paths: Iterable[Path]) -> None:
        """Open `paths`; `where` is what errors call the whole."""
        self.where = where
        self._entries: dict[str, Entry] = {}
        self._open: dict[Path, Any] = {}
        self._taken = 0
        for path in paths:
            self._index(path)

    def _index(self, path: Path) -> None:
        handle = _open(path)
        for name in handle.keys():
            if name in self._entries:
                raise TensorError(f"tensor {name!r} is in {self.home(name)} and again in {path}")
            header = handle.get_slice(name)
            self._entries[name] = Entry(path, tuple(header.get_shape()), str(header.get_dtype()))

    def __contains__(self, name: str) -> bool:
        """Whether a tensor of this name is there."""
        return name in self._entries

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._entries)

    def home(self, name: str) -> Path:
        """The file that holds the tensor."""
        return self._entries[name].path

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape, from the header."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """Its dtype in safetensors' words (F32, BF16, I8 ...), from the header."""
        return self._entries[name].dtype

    def get(self, name: str) -> Tensor:
        """The tensor, as a view of the mapped file; it keeps its mapping alive."""
        path = self.home(name)
        if self._taken > REOPEN_BYTES:
            self._open.clear()
            self._taken = 0
        if path not in self._open:
            self._open[path] = _open(path)
        try:
            tensor: Tensor = self._open[path].get_tensor(name)
        except SafetensorError as error:
            raise TensorError(f"tensor {name!r} in {path} cannot be read ({error}); fetch the file again") from None
        self._taken += tensor.nbytes
        return tensor


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist; fetch the model again") from None
    except (SafetensorError, OSError) as error:
        raise TensorError(f"{path} is not a whole safetensors file ({error}); fetch or write it again") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist; fetch the model again") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); fetch or write it again") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(raw).__name__}")
    return raw


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """The counterpart of `read_json`, for people to read as well."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def open_model(folder: Path) -> Shards:
    """The tensors of a model folder: one model.safetensors, or the shards that its index lists."""
    if (folder / MODEL_FILE).is_file():
        return Shards(folder / MODEL_FILE, [folder / MODEL_FILE])
    if (folder / INDEX_FILE).is_file():
        return _open_index(folder / INDEX_FILE)
    raise _nothing_to_open(folder, MODEL_FILE)


def open_adapter_file(folder: Path) -> Shards:
    """The tensors of one PEFT folder."""
    if not (folder / ADAPTER_FILE).is_file():
        raise _nothing_to_open(folder, ADAPTER_FILE)
    return Shards(folder / ADAPTER_FILE, [folder / ADAPTER_FILE])


def _open_index(index: Path) -> Shards:
    homes = read_json(index).get("weight_map")
    if not isinstance(homes, dict) or not all(isinstance(file, str) for file in homes.values()):
        raise CheckpointError(f"{index} has no 'weight_map' from tensor names to files; fetch or write it again")
    files = sorted(set(homes.values()))
    for file in files:
        if Path(file).name != file:
            raise CheckpointError(f"{index} points outside its folder: {file!r}")
    shards = Shards(index, [index.parent / file for file in files])
    for name, file in homes.items():
        if name not in shards or shards.home(name).name != file:
            raise TensorError(f"tensor {name!r} is missing from {index.parent / file}, where {index.name} has it")
    unlisted = sorted(shards.names() - set(homes))
    if unlisted:
        raise TensorError(f"tensor {unlisted[0]!r} in {shards.home(unlisted[0])} is left over: {index.name} lacks it")
    return shards


def _nothing_to_open(folder: Path, file: str) -> CheckpointError:
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if not pickled:
        return MissingFileError(f"{folder} holds no {file}; give the folder of a whole model")
    return CheckpointError(
        f"{folder} holds only pickled weights ({', '.join(pickled)}), which can run code when opened, so they are not. "
        f"Elsewhere, load them with torch.load(..., weights_only=True) and save the tensors with "
        f"safetensors.torch.save_file as {file}; then try again with that file"
    )


def read_place(shards: Shards, place: Place) -> Tensor:
    """One of our tensors, joined from its parts; parts that should be copies of one another are compared."""
    parts = [shards.get(name) for name in place.names]
    if place.copies:
        for name, part in zip(place.names[1:], parts[1:], strict=True):
            if not torch.equal(part, parts[0]):
                raise TensorError(
                    f"tensors {place.names[0]!r} and {name!r} in {shards.home(name)} differ; queries, keys and values "
                    f"of this model share one lora_A, so an adapter that was trained with three cannot be read"
                )
    return place.join(parts)


def check_tensors(shards: Shards, form: Form, shapes: Shapes, *, compact: Mapping[str, Compact] | None = None) -> None:
    """Refuse all but exactly the tensors of `shapes` (our names), in `form`; `compact` ones are codes and more."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        place = form.place(name)
        expected.update(dict.fromkeys(place.names, place.shape(shape)))
    for name, how in (compact or {}).items():
        expected |= {name + end: shape for end, shape in zip(("", *how.endings), how.shapes(shapes[name]), strict=True)}
    _check_names(shards, set(expected))
    for name, wanted in expected.items():
        found = shards.shape(name)
        if found != wanted:
            where = f"tensor {name!r} in {shards.home(name)}"
            raise TensorError(f"{where} has shape {list(found)}, where the config needs {list(wanted)}")
        _check_dtype(shards, name, (compact or {}).get(name))


def _check_names(shards: Shards, expected: set[str]) -> None:
    missing = sorted(expected - shards.names())
    left = sorted(name for name in shards.names() - expected if not HEADS.match(name))
    for names, what, why in (
        (missing, "missing from", "the config calls for it"),
        (left, "left over in", "the config has no place for it"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise TensorError(
                f"tensor {names[0]!r}{more} is {what} {shards.where}: {why}; "
                f"check that config and weights belong together"
            )


def _check_dtype(shards: Shards, name: str, how: Compact | None) -> None:
    found = shards.dtype(name)
    if (found != how.dtype) if how else not found.startswith(("F", "BF")):
        wanted = f"{how.dtype}, as {name + how.endings[0]!r} lies beside it" if how else "floating point"
        raise TensorError(f"tensor {name!r} in {shards.home(name)} is of type {found} and should be {wanted}")


def write_shards(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    max_shard_bytes: int,
    file: str = MODEL_FILE,
    part_of: Callable[[str], str] | None = None,
) -> None:
    """Write tensors as one file, or, past `max_shard_bytes` or of several parts, as numbered files and their index."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parts.setdefault(part_of(name) if part_of else "", {})[name] = tensor
    groups = [group for part in parts.values() for group in _groups(part, max_shard_bytes)]
    if len(groups) == 1:
        _save(folder / file, groups[0], tensors)
        return
    homes: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        shard = f"{Path(file).stem}-{number:05d}-of-{len(groups):05d}.safetensors"
        _save(folder / shard, names, tensors)
        homes.update(dict.fromkeys(names, shard))
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / f"{file}.index.json", {"metadata": {"total_size": total}, "weight_map": homes})


def _groups(tensors: Mapping[str, Tensor], limit: int) -> Iterator[list[str]]:
    """Names in their order, cut so that each group stays within `limit` bytes; a larger tensor stands alone."""
    group: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if group and size + tensor.nbytes > limit:
            yield group
            group, size = [], 0
        group.append(name)
        size += tensor.nbytes
    yield group


def _save(path: Path, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    owned: set[int] = set()
    batch: dict[str, Tensor] = {}
    for name in names:
        batch[name] = _standalone(tensors[name], owned)
        owned.add(batch[name].untyped_storage().data_ptr())
    path.touch()
    mode = path.stat().st_mode  # what the user's mask gives a new file; the writer below would give 0600
    save_file(batch, path, metadata={"format": "pt"})
    path.chmod(mode)


def _standalone(tensor: Tensor, taken: set[int]) -> Tensor:
    """The tensor on the CPU, contiguous, alone in its storage: safetensors stores no views and no sharing."""
    flat = tensor.detach().to(torch.device("cpu")).contiguous()
    storage = flat.untyped_storage()
    shared = storage.nbytes() != flat.nbytes or storage.data_ptr() in taken
    return flat.clone() if shared else flat
