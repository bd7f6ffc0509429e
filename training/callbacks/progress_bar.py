"""The progress bar of a run: steps, loss, tokens per second, time left."""

from __future__ import annotations

import logging
from typing import Any

from rich.progress import Progress, TaskID
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from checkpoints.progress import progress

__all__ = ["ProgressBar"]

logger = logging.getLogger(__name__)


class ProgressBar(TrainerCallback):
    """Shows where the run is; where there is no terminal, each entry is a log line instead."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._note: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar where a resumed run stands."""
        if not state.is_world_process_zero:
            return
        self._bar = progress()
        self._task = self._bar.add_task("train", total=state.max_steps, completed=state.global_step, note="")
        self._bar.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move on by one step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the newest figures."""
        entry = state.log_history[-1]
        if self._bar is None or not {"loss", "eval_loss"} & entry.keys():
            return
        for key, text in (
            ("loss", "loss {:.4f}"),
            ("eval_loss", "eval loss {:.4f}"),
            ("tokens_per_second", "{:,.0f} tokens/s"),
        ):
            if key in entry:
                self._note[key] = text.format(entry[key])
        note = "  ".join(self._note.values())
        self._bar.update(self._task, note=note)
        if self._bar.disable:
            logger.info("step %d/%d  %s", state.global_step, state.max_steps, note)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar, also after an error; closing twice is harmless."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
