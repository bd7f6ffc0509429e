"""Writes ``experts.jsonl`` and ``experts.png`` while a run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from checkpoints.atomic import write_text_atomically
from training.callbacks.drawing import Drawing
from training.moe.plot import plot_experts
from training.moe.statistics import ExpertStatistics

__all__ = ["KEY", "ExpertLog", "expert_rows"]

KEY = "experts"
"""Of the entries in the Trainer's log history, so that it is saved with the state and survives a resume."""


class ExpertLog(Drawing):
    """Adds a row per logged step: ``step``, ``routers_trainable`` and ``layers`` (``ExpertStatistics``).

    It also puts ``routers_trainable`` and ``load_balance_loss`` where ``metrics.jsonl`` takes its values
    from, so it comes before the callback that writes it.

    Args:
        statistics: what the trainer counts into.
        rows_path: ``experts.jsonl``.
        plot_path: ``experts.png``.
        routers_trainable: tells whether the routers are being trained now.
    """

    def __init__(
        self,
        statistics: ExpertStatistics,
        rows_path: Path,
        plot_path: Path,
        routers_trainable: Callable[[], bool],
    ) -> None:
        self._statistics = statistics
        self._rows_path, self._plot_path = rows_path, plot_path
        self._trainable = routers_trainable

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the rows of the steps that are done."""
        if state.is_world_process_zero:
            text = "".join(json.dumps(row) + "\n" for row in expert_rows(state.log_history))
            write_text_atomically(self._rows_path, text)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the row of this step."""
        entry = state.log_history[-1]
        if "loss" not in entry:
            return
        layers, balance = self._statistics.take()
        entry["routers_trainable"] = self._trainable()
        if balance is not None:
            entry["load_balance_loss"] = balance
        if not layers:  # routers whose decisions cannot be read
            return
        entry[KEY] = {"routers_trainable": self._trainable(), "layers": layers}
        if state.is_world_process_zero:
            with self._rows_path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(expert_rows([entry])[0]) + "\n")

    def draw(self, history: list[dict[str, Any]]) -> None:
        """Draw each layer's load and drop rate."""
        if rows := expert_rows(history):
            plot_experts(rows, self._plot_path)


def expert_rows(history: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows in the Trainer's ``log_history``."""
    return [{"step": int(entry["step"]), **entry[KEY]} for entry in history if KEY in entry]
