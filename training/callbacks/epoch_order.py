"""Tells the sampler which epoch begins."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.data.sampling import RowSampler

__all__ = ["EpochOrder"]


class EpochOrder(TrainerCallback):
    """Sets the sampler's epoch before the Trainer asks it for batches.

    accelerate 1.15 does so, too, but not on several ranks in the epoch that a resumed run begins in: there it
    wraps the batches twice, and looks for the sampler one wrapping deep.
    """

    def __init__(self, sampler: RowSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set it; ``state.epoch`` counts passes with a fraction, and a resumed run begins within one."""
        self._sampler.set_epoch(int(state.epoch or 0))
