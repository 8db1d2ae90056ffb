"""One PEFT LoRA folder, trained anywhere, as low-rank terms of our layers.

Nothing about it need resemble the release: any rank and alpha, by pattern of module too, any subset of the modules. Queries,
keys and values have a lora_A each; side by side they are one term of our fused projection,

    A = [A_q; A_k; A_v]      B = diag(s_q B_q, s_k B_k, s_v B_v)

with s = alpha / r (Hu et al. 2021, arXiv 2106.09685), or alpha / sqrt(r) where rslora is on (Kalajdzievski 2023, arXiv
2312.03732). Other tasks pay nothing for it: their banks are neither padded nor copied.

Shapes: R rank, O outputs, I inputs, as in the folder: a table's rows are its inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fivefold.errors import CheckpointError, InputError, TensorError
from fivefold.layouts import ADAPTER_FORMS, HEADS, Form, closest
from fivefold.lora import LoRALayer
from fivefold.model import Encoder
from fivefold.shards import Shards, open_adapter_file, read_json

CONFIG_FILE = "adapter_config.json"

# Settings that change the numbers in a way we do not follow; each is off where it is absent, None, false or empty.
UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "fan_in_fan_out",
    "modules_to_save",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
PLAIN = {"peft_type": "LORA", "bias": "none"}
# Starts that also change the base weights, which this folder does not hold.
OTHER_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")

Pair = tuple[Tensor, Tensor]
"""lora_A [R, I] and lora_B [O, R]."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What adapter_config.json says of rank and scaling."""

    rank: int
    alpha: float
    rslora: bool = False
    rank_pattern: Mapping[str, int] | None = None
    alpha_pattern: Mapping[str, float] | None = None

    @classmethod
    def from_file(cls, path: Path) -> LoraSettings:
        """Read the file of a plain LoRA; anything else is an error that names what is in the way."""
        raw = read_json(path)
        strange = [f"{key} {raw[key]!r}" for key in UNSUPPORTED if raw.get(key)]
        strange += [f"{key} {raw[key]!r}" for key, plain in PLAIN.items() if raw.get(key, plain) != plain]
        start = raw.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(OTHER_BASE):
            strange.append(f"init_lora_weights {start!r}")
        if strange:
            raise CheckpointError(
                f"{path}: only plain LoRA can be read, not {', '.join(strange)}; "
                f"train without, or merge the adapter into its base with PEFT and load that as a model"
            )
        rank, alpha = raw.get("r"), raw.get("lora_alpha")
        if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or alpha <= 0:
            raise CheckpointError(
                f"{path}: 'r' must be a whole number from 1 and 'lora_alpha' a positive number, got {rank!r} and {alpha!r}"
            )
        return cls(rank, alpha, bool(raw.get("use_rslora")), raw.get("rank_pattern"), raw.get("alpha_pattern"))

    @property
    def patterns(self) -> bool:
        """Whether rank or alpha differ between modules."""
        return bool(self.rank_pattern or self.alpha_pattern)

    def scaling(self, module: str = "", rank: int | None = None) -> float:
        """Factor of a module's low-rank product: by its name in the folder and its rank, or that of most modules."""
        rank = rank or self.rank
        patterns = self.alpha_pattern or {}
        # PEFT's rule: the first that is the end of the name, from a dot on, as an expression
        alpha = next((patterns[p] for p in patterns if re.match(rf"(.*\.)?({p})$", module)), self.alpha)
        return alpha / (rank**0.5 if self.rslora else rank)


def open_adapter(folder: Path, own_names: Iterable[str]) -> tuple[LoraSettings, Shards, Form]:
    """Settings, tensors and spelling of a folder that adapts some of the layers whose banks have our names `own_names`."""
    settings = LoraSettings.from_file(folder / CONFIG_FILE)
    shards = open_adapter_file(folder)
    form = closest(ADAPTER_FORMS, own_names, shards.names())
    if form is None:
        some = ", ".join(sorted(shards.names())[:3]) or "none at all"
        raise TensorError(f"{shards.where} holds no LoRA tensor of this model; its names are: {some}")
    return settings, shards, form


def add_adapter(encoder: Encoder, name: str, folder: Path) -> None:
    """Give a loaded encoder one more task, the adapter of a PEFT folder, in the encoder's precision and on its device.

    Raises:
        InputError: the model has a task of this name.
        CheckpointError: the folder holds something other than a plain LoRA of this model.
    """
    config = encoder.config
    if name in config.lora_adaptations:
        raise InputError(f"the model has a task {name!r} already; give the adapter of {folder} another name")
    like = encoder.embeddings.norm.weight
    layers = {path: layer for path, layer in encoder.named_modules() if isinstance(layer, LoRALayer)}
    for path, (a, b) in _read_terms(Path(folder), layers).items():
        layers[path].add_term(len(config.lora_adaptations), a.to(like), b.to(like))
    encoder.config = replace(config, lora_adaptations=(*config.lora_adaptations, name))


def _read_terms(folder: Path, layers: Mapping[str, LoRALayer]) -> dict[str, Pair]:
    """The terms of the layers that a folder adapts, with our names and orientation, the scaling within lora_B."""
    settings, shards, form = open_adapter(folder, (f"{path}.lora_A" for path in layers))
    terms: dict[str, Pair] = {}
    known: set[str] = set()
    for path, layer in layers.items():
        places = form.place(f"{path}.lora_A"), form.place(f"{path}.lora_B")
        known.update(name for place in places for name in place.names)
        whole = layer.shape[::-1] if places[0].transposed else layer.shape  # [O, I]
        shape = whole[0] // len(places[1].names), whole[1]
        pairs = [_pair(shards, names, shape, settings) for names in zip(*(p.names for p in places), strict=True)]
        a, b = _side_by_side(pairs)
        if len(a):
            terms[path] = (a.T, b.T) if places[0].transposed else (a, b)
    left = sorted(name for name in shards.names() - known if not HEADS.match(name))
    if left:
        raise TensorError(f"tensor {left[0]!r} is left over in {shards.where}: the model has no place for it")
    return terms


def _pair(shards: Shards, names: tuple[str, ...], shape: tuple[int, int], settings: LoraSettings) -> Pair:
    """lora_A [R, I] and scaled lora_B [O, R] of one module, in float32; of rank 0 where the folder leaves it alone."""
    outputs, inputs = shape
    absent = [name for name in names if name not in shards]
    if len(absent) == 2:
        return torch.empty(0, inputs), torch.empty(outputs, 0)
    if absent:
        raise TensorError(f"tensor {absent[0]!r} is missing from {shards.where}, which has the other half of the pair")
    a, b = (shards.get(name) for name in names)
    rank = a.shape[0]
    for name, tensor, wanted in zip(names, (a, b), ((rank, inputs), (outputs, rank)), strict=True):
        if tensor.shape != wanted or not tensor.is_floating_point():
            raise TensorError(
                f"tensor {name!r} in {shards.where} is {tensor.dtype} of shape {list(tensor.shape)}, where this model "
                f"needs floating point of {list(wanted)}"
            )
    return a.float(), b.float() * settings.scaling(names[0].split(".lora_")[0], rank)


def _side_by_side(pairs: list[Pair]) -> Pair:
    """Pairs of blocks of outputs as one pair of them all; one lora_A that all share, as in the release, is kept once."""
    first = pairs[0][0]
    if all(torch.equal(a, first) for a, _ in pairs):
        return first, torch.cat([b for _, b in pairs])
    diagonal: Tensor = torch.block_diag(*(b for _, b in pairs))  # type: ignore[no-untyped-call]
    return torch.cat([a for a, _ in pairs]), diagonal
