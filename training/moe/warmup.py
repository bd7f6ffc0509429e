"""Routers that are frozen for the first steps of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["RouterWarmup", "warmup_steps"]

logger = logging.getLogger(__name__)


def warmup_steps(share: float, max_steps: int) -> int:
    """Return for how many of ``max_steps`` the routers are frozen: at least 1."""
    return max(1, round(share * max_steps))


class RouterWarmup(TrainerCallback):
    """Freezes parameters at first and releases them after ``share`` of the steps.

    The optimizer knows them from the start; what has no gradient it leaves alone.

    Args:
        parameters: of the routers, trainable when the optimizer is made.
        share: of the steps.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], share: float) -> None:
        self._parameters = list(parameters)
        self._share = share

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze or release, as the step has it: a resumed run does what the whole one did."""
        steps = warmup_steps(self._share, state.max_steps)
        trains = state.global_step >= steps
        if trains != self._parameters[0].requires_grad:
            for parameter in self._parameters:
                parameter.requires_grad_(trains)
            what = "released" if trains else "frozen"
            logger.info("routers are %s at step %d (warm-up: %d steps)", what, state.global_step + 1, steps)
