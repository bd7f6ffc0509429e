"""Tokens per second, put into the Trainer's own log."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["Throughput"]


class Throughput(TrainerCallback):
    """Adds ``tokens_per_second`` to each training entry of ``state.log_history``.

    Counts the tokens that are not padding, over the time of the steps since the last entry; evaluation and
    saving are not counted. The history is saved with the state, so it survives a resume.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._started = 0.0
        self._tokens = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start counting from where a resumed run stands."""
        self._tokens = int(state.num_input_tokens_seen)
        self._seconds = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of one optimizer step."""
        self._started = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock."""
        self._seconds += time.perf_counter() - self._started

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the rate into the entry that was just made."""
        entry = state.log_history[-1]
        if "loss" not in entry or self._seconds == 0:
            return
        tokens = int(state.num_input_tokens_seen)
        entry["tokens_per_second"] = (tokens - self._tokens) / self._seconds
        self._tokens, self._seconds = tokens, 0.0
