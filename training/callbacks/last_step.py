"""The last step is always logged, so a run's final loss is never missing."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["LastStep"]


class LastStep(TrainerCallback):
    """Logs the last step even where ``log_steps`` does not divide it (the Trainer evaluates and saves it)."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a log line at the last step."""
        if state.global_step >= state.max_steps:
            control.should_log = True
