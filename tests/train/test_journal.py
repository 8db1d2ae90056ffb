from __future__ import annotations

from pathlib import Path

from transformers import TrainerControl, TrainerState, TrainingArguments

from fivefold.train.journal import CURVES, Journal, draw_curves, read_log


def test_a_log_goes_on_from_a_checkpoint_and_begins_anew_without(tmp_path: Path) -> None:
    journal, state, args = Journal(tmp_path), TrainerState(), TrainingArguments(str(tmp_path), use_cpu=True)
    journal.on_train_begin(args, state, TrainerControl())
    for step in range(1, 5):
        state.global_step = step
        journal.on_log(args, state, TrainerControl(), {"loss": 1 / step, "part": 0.5})
    journal.on_log(args, state, TrainerControl(), {"train_runtime": 3.0})  # the summary at the end
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2, 3, 4]
    state.global_step = 2
    journal.on_train_begin(args, state, TrainerControl())
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2]
    journal.on_train_end(args, state, TrainerControl())
    assert (tmp_path / CURVES).stat().st_size > 5000
    state.global_step = 0
    journal.on_train_begin(args, state, TrainerControl())
    assert read_log(tmp_path) == []


def test_a_run_that_logged_nothing_has_an_empty_picture(tmp_path: Path) -> None:
    draw_curves(tmp_path)
    assert (tmp_path / CURVES).is_file()
