"""`fivefold info`: what a model is and where it would run, without loading its weights."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fivefold import __version__
from fivefold.commands.loading import resolve_folder
from fivefold.compact import FORMS, form_of
from fivefold.config import ModelConfig
from fivefold.errors import CheckpointError
from fivefold.quantization import choose

_FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)^---\s*$", re.MULTILINE | re.DOTALL)
_LICENCE_LINES = re.compile(
    r"^(license|license_name):[ \t]*[\"']?([^\s\"'#][^\"'#\n]*?)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE
)
_UNITS = ("B", "kB", "MB", "GB")


def run(args: Namespace) -> None:
    """Print the facts for people or as JSON."""
    facts = describe(args.model, resolve_folder(args.model, args))
    print(json.dumps(facts, ensure_ascii=False, indent=2) if args.json else _page(facts))


def describe(model: str, folder: Path) -> dict[str, Any]:
    """Facts of a model folder, ready for JSON."""
    config = ModelConfig.from_folder(folder)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    return {
        "model": model,
        "folder": str(folder),
        "licence": _licence(folder),
        "parameters": _parameters(folder),
        "dimensions": config.hidden_size,
        "matryoshka_dimensions": list(config.matryoshka_dimensions),
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "max_length": config.max_length,
        "positions": config.position_embedding_type,
        **({"rotary_emb_base": config.rotary_emb_base} if config.position_embedding_type == "rotary" else {}),
        "feed_forward": config.feed_forward_type,
        "lora": {"rank": config.lora_rank, "alpha": config.lora_alpha},
        "tasks": {name: config.prompt(name) for name in config.lora_adaptations},
        "files": files,
        "fivefold": __version__,
        "torch": torch.__version__,
        "device": _device(),
        "dtype auto": choose("auto", torch.device("cuda" if torch.cuda.is_available() else "cpu")).describe(),
    }


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


def _licence(folder: Path) -> str:
    """The licence the model card states in its front matter."""
    card = folder / "README.md"
    front = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    found = {match[1]: match[2] for match in reversed([*_LICENCE_LINES.finditer(front[1] if front else "")])}
    if found.get("license") == "other":  # on the hub, of a name that is not in its list
        return found.get("license_name", "other")
    return found.get("license", "not stated in the model's folder")


def _parameters(folder: Path) -> int:
    """Numbers of the weights, from the files' headers alone; what lies beside codes in fewer bits is not among them."""
    return sum(_stored(path) for path in folder.glob("*.safetensors"))


def _stored(path: Path) -> int:
    try:
        with safe_open(path, framework="np") as tensors:
            names = set(tensors.keys())
            beside = {name + ending for name in names for form in FORMS for ending in form.endings}
            return sum(_numbers(name, tensors.get_slice(name), names) for name in names - beside)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}); fetch or write it again") from None


def _numbers(name: str, stored: Any, names: set[str]) -> int:
    """Of one tensor; one code of a matrix in fewer bits may stand for several."""
    form = form_of(name, names)
    count: int = prod(stored.get_shape())
    return count * form.per_code if form else count


def _size(count: float) -> str:
    for unit in _UNITS:
        if round(count, 1) < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit takes every size; this is a bug")


def _grouped(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _page(facts: dict[str, Any]) -> str:
    """One fact a line; tasks and files as short lists."""
    plain = {name: value for name, value in facts.items() if not isinstance(value, dict | list)}
    plain["matryoshka dimensions"] = ", ".join(map(str, facts["matryoshka_dimensions"])) or "none stated"
    plain["lora"] = f"rank {facts['lora']['rank']}, alpha {facts['lora']['alpha']}"
    lines = [f"{name.replace('_', ' '):<22}{_grouped(value)}" for name, value in plain.items()]
    lines.append("tasks" if facts["tasks"] else f"{'tasks':<22}none")
    lines += [f"  {name:<20}{prompt.strip() or '(no prompt)'}" for name, prompt in facts["tasks"].items()]
    lines.append("files")
    lines += [f"  {name:<20}{_size(size)}" for name, size in facts["files"].items()]
    return "\n".join(lines)
