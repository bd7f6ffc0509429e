"""A plot of the run, drawn anew from the log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["Drawing"]


class Drawing(TrainerCallback, ABC):
    """Draws whenever the state is saved, and at the end; of several processes the first does."""

    @abstractmethod
    def draw(self, history: list[dict[str, Any]]) -> None:
        """Draw what is in the Trainer's ``log_history``, if anything."""

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
        if state.is_world_process_zero:
            self.draw(state.log_history)
