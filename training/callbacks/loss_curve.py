"""Keeps ``loss.png`` up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.metrics import rows_from_history
from training.plot import plot_loss

__all__ = ["LossCurve"]


class LossCurve(TrainerCallback):
    """Draws the curve whenever the state is saved, and at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw what there is so far."""
        self._draw(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the whole run."""
        self._draw(state)

    def _draw(self, state: TrainerState) -> None:
        rows = rows_from_history(state.log_history)
        if rows and state.is_world_process_zero:
            plot_loss(rows, self.path)
