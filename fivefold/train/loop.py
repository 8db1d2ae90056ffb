"""The training loop: AdamW, a linear schedule, a log, and state from which a run goes on as if it had never stopped.

What a step trains on is a function of the step's number alone, so the state is parameters, moments and that number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast."""

    steps: int
    learning_rate: float
    warmup: int = 40
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Linear up over `warmup` steps, then linear to zero at the end."""
        rising = (step + 1) / self.warmup
        falling = (self.steps - step) / max(1, self.steps - self.warmup)
        return self.learning_rate * min(1.0, rising, falling)


@dataclass(frozen=True, slots=True)
class StepResult:
    """The loss of one step, its named parts for the log, and how many tokens it read."""

    loss: Tensor
    parts: Mapping[str, float]
    tokens: int


Step = Callable[[int], StepResult]


def train(
    parameters: Mapping[str, Parameter],
    step: Step,
    schedule: Schedule,
    *,
    state: Path | None = None,
    log: Path | None = None,
    save_seconds: float = 300.0,
) -> None:
    """Minimise `step` over `parameters`, in place; starts from `state` where that file exists, and keeps it fresh."""
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.0, weight_decay=0.0)
    first = _restore(state, parameters, optimizer) if state and state.exists() else 0
    journal = _Journal(log)
    saved = time.monotonic()
    for number in range(first, schedule.steps):
        result = _advance(optimizer, step, number, schedule)
        journal.note(number, result, schedule)
        if state and time.monotonic() - saved > save_seconds:
            _save(state, parameters, optimizer, number + 1)
            saved = time.monotonic()
    if state:
        _save(state, parameters, optimizer, schedule.steps)


def _advance(optimizer: torch.optim.AdamW, step: Step, number: int, schedule: Schedule) -> StepResult:
    """One update."""
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(number)
    optimizer.zero_grad(set_to_none=True)
    result = step(number)
    result.loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], schedule.clip)
    optimizer.step()
    return result


def _save(path: Path, parameters: Mapping[str, Parameter], optimizer: torch.optim.AdamW, number: int) -> None:
    """Write beside the old state, then take its place, so that a run killed here loses nothing."""
    tensors = {f"parameter.{name}": p.detach().contiguous() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        moments = optimizer.state[parameter]
        tensors |= {f"{key}.{name}": moments[key] for key in _MOMENTS if key in moments}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"steps": str(number)})
    partial.replace(path)


@torch.no_grad()
def _restore(path: Path, parameters: Mapping[str, Parameter], optimizer: torch.optim.AdamW) -> int:
    """Load what `_save` wrote; returns the number of steps done."""
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for name, parameter in parameters.items():
            parameter.copy_(file.get_tensor(f"parameter.{name}"))
            moments = {key: file.get_tensor(f"{key}.{name}") for key in _MOMENTS if f"{key}.{name}" in names}
            optimizer.state[parameter].update(moments)
        return int(file.metadata()["steps"])


class _Journal:
    """One JSON line every few steps: means of the loss parts and tokens a second since the last line."""

    def __init__(self, path: Path | None, every: int = 10) -> None:
        self.path, self.every = path, every
        self.results: list[StepResult] = []
        self.since = time.monotonic()

    def note(self, number: int, result: StepResult, schedule: Schedule) -> None:
        """Remember one step; write a line when it is time."""
        self.results.append(StepResult(result.loss.detach(), result.parts, result.tokens))
        if self.path is None or (number + 1) % self.every and number + 1 < schedule.steps:
            return
        now, count = time.monotonic(), len(self.results)
        line = {
            "step": number + 1,
            "of": schedule.steps,
            "rate": round(schedule.rate(number), 7),
            "loss": round(sum(float(r.loss) for r in self.results) / count, 4),
            **{k: round(sum(r.parts[k] for r in self.results if k in r.parts) / count, 4) for k in result.parts},
            "tokens_per_s": round(sum(r.tokens for r in self.results) / (now - self.since)),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.results, self.since = [], now
