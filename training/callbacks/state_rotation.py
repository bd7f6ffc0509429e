"""Removes saved states that newer ones make useless."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from checkpoints.atomic import sync_file
from training.state_files import LAST

__all__ = ["StateRotation"]


class StateRotation(TrainerCallback):
    """Keeps the last states by step, and removes older ones only when the disk holds the newest.

    The Trainer's own goes by the time of each directory, which a copy of the run or a clock that was set
    changes, and removes the older one while the newer may still be in memory.

    Args:
        keep: how many to keep.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make sure of the state that was just saved, and remove the oldest ones."""
        if not state.is_world_process_zero:
            return
        states = {
            int(number): path
            for path in Path(str(args.output_dir)).glob("checkpoint-*")
            if (number := path.name.rpartition("-")[2]).isdigit()
        }
        # Of the rest the disk has been made sure before this file was written, see OrderedTrainer.
        sync_file(states[state.global_step] / LAST)
        for step in sorted(states)[: -self._keep]:
            shutil.rmtree(states[step], ignore_errors=True)
