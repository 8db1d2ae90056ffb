"""What a run says of itself: one JSON line for every logged step, and the curves of those as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LOG, CURVES = "log.jsonl", "curves.png"
NOT_DRAWN = {"step", "epoch", "learning_rate", "grad_norm"}


class Journal(TrainerCallback):  # type: ignore[misc]  # a class without types
    """Writes `log.jsonl` as the run goes, and `curves.png` at its end, into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A resumed run takes back what was logged after its checkpoint."""
        if state.is_world_process_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_log(self.folder) if line["step"] <= state.global_step > 0]
            (self.folder / LOG).write_text("".join(map(_line, kept)), encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """One line; the summary at the end of a run has no loss of a step and is left out."""
        if logs and "loss" in logs and state.is_world_process_zero:
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(_line({"step": state.global_step, **logs}))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Draw."""
        if state.is_world_process_zero:
            draw_curves(self.folder)


def _line(entry: Mapping[str, float]) -> str:
    return json.dumps(dict(entry)) + "\n"


def read_log(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's log, none where it has not begun."""
    path = folder / LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def draw_curves(folder: Path) -> None:
    """Loss and its parts by step, as `curves.png`."""
    entries = read_log(folder)
    figure = Figure(figsize=(8, 4.5))
    axes = figure.subplots()
    for name in sorted({name for entry in entries for name in entry} - NOT_DRAWN):
        points = [(entry["step"], float(entry[name])) for entry in entries if name in entry]
        axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="step", ylabel="loss")
    if entries:
        axes.legend()
    figure.savefig(folder / CURVES, dpi=120, bbox_inches="tight")
