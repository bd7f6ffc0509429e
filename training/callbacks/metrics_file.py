"""Writes ``metrics.jsonl`` while a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from checkpoints.atomic import write_text_atomically
from training.metrics import rows_from_history, to_line

__all__ = ["MetricsFile"]


class MetricsFile(TrainerCallback):
    """Appends a row when a step is complete: after its evaluation where it has one.

    The saved state is the truth: a resumed run first rewrites the file from the history in it, so rows of
    steps that are trained again, and a row that was half written, are gone, and none is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the rows of the steps that are done."""
        if state.is_world_process_zero:
            rows = rows_from_history(state.log_history)
            if args.eval_on_start:  # the last step's evaluation was given up, and is what comes next
                rows = [row for row in rows if row["step"] != state.global_step]
            write_text_atomically(self.path, "".join(to_line(row) for row in rows))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Append the row of this step, unless its evaluation is still to come."""
        newest = state.log_history[-1]
        if not state.is_world_process_zero or ("eval_loss" not in newest and control.should_evaluate):
            return
        # A step has at most a training and an evaluation entry; the summary at the end gives no row.
        entries = [entry for entry in state.log_history[-2:] if entry["step"] == newest["step"]]
        if "loss" in newest or "eval_loss" in newest:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(to_line(rows_from_history(entries)[0]))
