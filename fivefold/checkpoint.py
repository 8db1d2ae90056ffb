"""Model folders in and out: every layout becomes our own tensors, and back, bit for bit.

`read` gives the tensors as they are stored, `load_encoder` a model ready to run, `write` makes a folder, `convert` does
both. Reading checks every tensor that the config calls for before any is used. Files stay memory-mapped, and tensors
are cast one at a time. A folder being written appears whole or not at all.

Shapes: O rows of a matrix, I columns.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from fivefold.adapters import Adapter, open_adapters, read_bank, write_adapter, write_adapters
from fivefold.compact import CODEBOOKS, INT8, Compact, Parts, form_of
from fivefold.config import ModelConfig
from fivefold.errors import CheckpointError, InputError, MissingFileError, TensorError
from fivefold.layouts import (
    HEADS,
    LAYOUTS,
    MODEL_FORMS,
    OWN_FORM,
    WRAPPED_FORM,
    Form,
    Leaves,
    Scheme,
    closest,
    is_bank,
    tensor_shapes,
)
from fivefold.model import Encoder
from fivefold.quantization import Codes, quantize, quantized_names
from fivefold.shards import Shards, check_tensors, open_model, read_json, read_place, write_json, write_shards

Reader = Callable[[], Tensor]

DEFAULT_SHARD_BYTES = 5_000_000_000
ROUNDED_ROWS = 4096
"""Rows of a matrix that are in float32 at a time while it is put into 8 bits."""
WORD_TABLE = "embeddings.word_embeddings.weight"
QUANTIZATIONS: Mapping[str, Compact] = {"int8": INT8, "codebook-words": CODEBOOKS}
"""Ways to store matrices in our own layout, by the form of the word table; all other matrices are int8 in both."""

# Files that go along when a folder is converted; patterns within the folder.
SIDE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "*.md",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened folder, checked: its config, its layout, and how to read each of our tensors."""

    config: ModelConfig
    layout: str
    readers: Mapping[str, Reader]
    compact: Mapping[str, tuple[Compact, Callable[[], Parts]]]
    """How to read the matrices that are stored in fewer bits as they are."""

    def codes(self, name: str) -> Codes:
        """A matrix in 8 bits: as it is stored, or else rounded here, a block of rows in float32 at a time."""
        form, stored = self.compact.get(name, (None, None))
        parts = stored() if stored else (self.readers[name](),)
        if form is INT8:
            return parts[0].clone(), parts[1].clone()
        count, width = parts[0].shape
        codes = torch.empty(count, width * (form.per_code if form else 1), dtype=torch.int8)
        scales = torch.empty(count)
        for start in range(0, count, ROUNDED_ROWS):
            some = slice(start, start + ROUNDED_ROWS)
            codes[some], scales[some] = INT8.encode(form.rows(parts, some) if form else parts[0][some].float())
        return codes, scales

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Our names and tensors, one at a time, as stored."""
        for name, reader in self.readers.items():
            yield name, reader()


def load_encoder(folder: Path, *, dtype: torch.dtype, device: torch.device, int8: bool = False) -> Encoder:
    """The encoder of a folder of any layout, ready to run: in eval mode, without gradients.

    Where the stored dtype is `dtype` and `device` is the CPU, the weights stay in the mapped file. With `int8`, which is for
    a CPU in float32, matrices are in 8 bits, one read at a time, and nothing stays in the file.
    """
    checkpoint = open_checkpoint(folder)
    with torch.device("meta"):
        encoder = Encoder(checkpoint.config)
    rounded = quantized_names(encoder) if int8 else set()
    state = {
        name: read().to(device=device, dtype=dtype, copy=int8)
        for name, read in checkpoint.readers.items()
        if name not in rounded
    }
    encoder.load_state_dict(state, assign=True, strict=not int8)
    if int8:
        quantize(encoder, checkpoint.codes)
    return encoder.eval().requires_grad_(False)


def read(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Config and tensors of a folder of any layout, under our names and in the dtype they are stored in."""
    checkpoint = open_checkpoint(folder)
    return checkpoint.config, dict(checkpoint.tensors())


def write(
    folder: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    *,
    layout: str = "fivefold",
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    quantize: str | None = None,
    part_of: Callable[[str], str] | None = None,
) -> None:
    """Write a new model folder, whole or not at all.

    Args:
        folder: its place, where nothing is yet.
        config: what the tensors are of.
        tensors: by our names.
        layout: one of `LAYOUTS`.
        max_shard_bytes: of a file of weights.
        quantize: one of `QUANTIZATIONS`, in our own layout only.
        part_of: of a tensor's name in the layout; tensors of different parts go to different files.
    """
    _check_layout(layout, quantize)
    with staged(Path(folder)) as staging:
        _write_into(staging, config, tensors, layout=layout, limit=max_shard_bytes, quantize=quantize, part_of=part_of)


def convert(
    source: Path,
    target: Path,
    *,
    layout: str,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    quantize: str | None = None,
) -> None:
    """Write the model of `source` as a new folder of a layout, tokenizer and cards included, the weights' bits kept.

    `quantize` alone changes bits: it is one of `QUANTIZATIONS`, in our own layout only.
    """
    _check_layout(layout, quantize)
    with staged(Path(target)) as staging:
        config, tensors = read(source)
        _write_into(staging, config, tensors, layout=layout, limit=max_shard_bytes, quantize=quantize)
        copy_side_files(Path(source), staging)


def save_adapter(source: Path, target: Path, *, task: str) -> None:
    """Write one task of a model folder as the new folder `target`, which PEFT loads onto native transformers' encoder.

    Raises:
        UnknownTaskError: the model has no adapter of this name.
    """
    checkpoint = open_checkpoint(source)
    task_id = checkpoint.config.task_id(task)
    banks = {name: reader() for name, reader in checkpoint.readers.items() if is_bank(name)}
    config, banks = _with_word_terms(checkpoint.config, banks)
    terms = {name: bank[task_id] for name, bank in banks.items()}
    with staged(Path(target)) as staging:
        write_adapter(staging, config, terms, WRAPPED_FORM)


def detect_layout(folder: Path) -> str:
    """Which of `LAYOUTS` a folder is in."""
    return open_checkpoint(folder).layout


# ---- reading --------------------------------------------------------------------------------------------------------


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a model folder and check every name and shape; no tensor is read yet."""
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is not a folder; give one that holds config.json and model.safetensors")
    config, shards = ModelConfig.from_folder(folder), open_model(folder)
    form = closest(MODEL_FORMS, tensor_shapes(config), shards.names())
    if form is None:
        some = ", ".join(sorted(shards.names())[:3]) or "none at all"
        raise TensorError(f"{shards.where} holds no tensor of this model; its names are: {some}")
    adapters: tuple[Adapter, ...] = ()
    if form is not OWN_FORM:
        config = replace(config, pooler=_has_pooler(form, config, shards))
        if form.leaves is not Leaves.BANKS:
            config, adapters = open_adapters(folder, config)
    readers = _readers(form, config, shards, adapters)
    forms = _compact_forms(readers, shards) if form is OWN_FORM else {}
    compact = {name: (how, partial(_parts, shards, name, how)) for name, how in forms.items()}
    return Checkpoint(config, _layout_of(form, folder, shards), readers, compact)


def _readers(form: Form, config: ModelConfig, shards: Shards, adapters: tuple[Adapter, ...]) -> dict[str, Reader]:
    """A reader for every tensor the config calls for, in the order of the model, after checking that it is there."""
    shapes = tensor_shapes(config)
    banks = {name: shape for name, shape in shapes.items() if adapters and is_bank(name)}
    inside = {name: shape for name, shape in shapes.items() if name not in banks}
    matrices = [name for name, shape in inside.items() if len(shape) == 2]
    compact = _compact_forms(matrices, shards) if form is OWN_FORM else {}
    check_tensors(shards, form, inside, compact=compact)
    for adapter in adapters:
        adapter.check(banks)

    def reader(name: str) -> Reader:
        if name in banks:
            return partial(read_bank, adapters, name, config)
        if name in compact:
            return partial(_decoded, shards, name, compact[name])
        return partial(read_place, shards, form.place(name))

    return {name: reader(name) for name in shapes}


def _compact_forms(names: Iterable[str], shards: Shards) -> dict[str, Compact]:
    """How those of these tensors are stored that are in fewer bits."""
    stored = shards.names()
    return {name: form for name in names if (form := form_of(name, stored))}


def _parts(shards: Shards, name: str, form: Compact) -> Parts:
    """Codes, and what lies beside them."""
    return tuple(shards.get(name + ending) for ending in ("", *form.endings))


def _decoded(shards: Shards, name: str, form: Compact) -> Tensor:
    """-> float32 [O, I]."""
    return form.decode(*_parts(shards, name, form))


def _has_pooler(form: Form, config: ModelConfig, shards: Shards) -> bool:
    """Whether any tensor of the pooler is there; native transformers can leave it out altogether."""
    pooler = [name for name in tensor_shapes(replace(config, pooler=True)) if name.startswith("pooler.")]
    return any(foreign in shards for name in pooler for foreign in form.place(name).names)


def _layout_of(form: Form, folder: Path, shards: Shards) -> str:
    """The layout a form belongs to; plain `roberta.` names occur in three, which config.json tells apart."""
    if form is OWN_FORM:
        return "fivefold"
    if form.leaves is Leaves.BANKS:
        return "jina"
    if form.scheme in (Scheme.JINABERT, Scheme.QK_POST_NORM):
        return "jinabert"
    raw = read_json(folder / "config.json")
    if raw.get("model_type") != "jina_embeddings_v3" and form.scheme is Scheme.JINA:
        return "jina"
    heads = any(HEADS.match(name) for name in shards.names())
    return "hf" if form == LAYOUTS["hf"].form and not heads else "transformers"


# ---- writing --------------------------------------------------------------------------------------------------------


def _check_layout(layout: str, quantize: str | None) -> None:
    for what, value, known in (("layout", layout, LAYOUTS), ("quantization", quantize, (None, *QUANTIZATIONS))):
        if value not in known:
            raise InputError(f"unknown {what} {value!r}; there are: {', '.join(filter(None, known))}")
    if quantize and layout != "fivefold":
        raise InputError(f"layout {layout!r} has no quantized matrices; write 'fivefold', or without quantize")


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary sibling of `target` that takes its name at the end, or goes away if anything fails."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists and is not an empty folder; choose another name or remove it first")
    staging = target.absolute().with_name(f".{target.name}.{uuid4().hex[:8]}.partial")
    staging.mkdir(parents=True)
    try:
        yield staging
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _write_into(
    folder: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    *,
    layout: str,
    limit: int,
    quantize: str | None,
    part_of: Callable[[str], str] | None = None,
) -> None:
    _check_writable(config, tensors)
    _check_holds(layout, config)
    how = LAYOUTS[layout]
    if layout != "fivefold":
        config, tensors = _with_word_terms(config, tensors)
    dtype = str(tensors[WORD_TABLE].dtype).removeprefix("torch.")
    config = replace(config, torch_dtype=dtype)
    write_json(folder / "config.json", how.config(config))
    form = how.form_of(config)
    inside = {name: tensor for name, tensor in tensors.items() if not (how.folders and is_bank(name))}
    files = _quantized(inside, QUANTIZATIONS[quantize]) if quantize else form.split(inside)
    write_shards(folder, files, max_shard_bytes=limit, part_of=part_of)
    if how.folders:
        write_adapters(folder, config, tensors)


def _quantized(tensors: Mapping[str, Tensor], words: Compact) -> dict[str, Tensor]:
    """The word table in `words`, other matrices in 8 bits, vectors and banks as they are."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            stored[name] = tensor
            continue
        if not tensor.isfinite().all():
            raise TensorError(f"tensor {name!r} holds NaN or infinity, which integers cannot store")
        form = words if name == WORD_TABLE else INT8
        if tensor.shape[1] % form.per_code:
            raise InputError(
                f"a hidden size of {tensor.shape[1]} has no such form: it is not a multiple of {form.per_code}; "
                f"store it as 'int8'"
            )
        parts = form.encode(tensor.detach().float())
        if not all(part.isfinite().all() for part in parts):
            raise TensorError(f"tensor {name!r} holds entries too large for float16 scales; store it as 'int8'")
        stored |= {name + ending: part for ending, part in zip(("", *form.endings), parts, strict=True)}
    return stored


def _with_word_terms(config: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The same adapters as foreign layouts have them, with a term for every word, of zeros where there was none."""
    filled = dict(tensors)
    if config.lora_adaptations and not config.lora_words:
        like = next(tensor for name, tensor in tensors.items() if is_bank(name))
        config = replace(config, lora_words=True)
        for name, shape in tensor_shapes(config).items():
            if is_bank(name) and name not in filled:
                filled[name] = like.new_zeros(shape)
    return config, filled


def _check_holds(layout: str, config: ModelConfig) -> None:
    if not LAYOUTS[layout].holds(config):
        fits = " or ".join(repr(name) for name, other in LAYOUTS.items() if other.holds(config))
        raise InputError(
            f"layout {layout!r} has no place for this model, which has {config.position_embedding_type} positions, "
            f"{config.feed_forward_type} feed-forward layers and {len(config.lora_adaptations)} adapters; write {fits}"
        )


def _check_writable(config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """The tensors to write are exactly those the config calls for."""
    shapes = tensor_shapes(config)
    for name in sorted(set(shapes) ^ set(tensors)):
        what = "missing: the config calls for it" if name in shapes else "left over: the config has no place for it"
        raise TensorError(f"tensor {name!r} cannot be written, it is {what}")
    for name, shape in shapes.items():
        found = tuple(tensors[name].shape)
        if found != shape:
            raise TensorError(f"tensor {name!r} has shape {list(found)}, where the config needs {list(shape)}")


def copy_side_files(source: Path, target: Path) -> None:
    """Copy tokenizer, cards and licences, `SIDE_FILES`, from one model folder to another."""
    for pattern in SIDE_FILES:
        for path in source.glob(pattern):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
