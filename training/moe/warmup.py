"""Routers that stay as they are for the first steps of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["RouterWarmup", "warmup_steps"]

logger = logging.getLogger(__name__)


def warmup_steps(share: float, max_steps: int) -> int:
    """Return for how many of ``max_steps`` the routers stay as they are: at least 1."""
    return max(1, round(share * max_steps))


class RouterWarmup(TrainerCallback):
    """Keeps parameters still at first and releases them after ``share`` of the steps.

    Their gradients are zeros until then, and gone before the optimizer steps, so it neither moves nor decays
    them nor starts its averages. ``requires_grad`` stays: DDP and the optimizer look at it once, at first.

    Args:
        parameters: of the routers, trainable.
        share: of the steps.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], share: float) -> None:
        self._parameters = list(parameters)
        self._share = share
        self.released = False
        for parameter in self._parameters:
            parameter.register_hook(self._gradient)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See where a resumed run stands: one with no step left has its gradients asked for afterwards."""
        self.released = state.global_step >= warmup_steps(self._share, state.max_steps)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hold or release by the number of the step: a resumed run does what the whole one did."""
        steps = warmup_steps(self._share, state.max_steps)
        released = state.global_step >= steps
        if released and not self.released:
            logger.info("routers are released at step %d, after %d steps", state.global_step + 1, steps)
        self.released = released

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the gradients away from the optimizer."""
        if not self.released:
            for parameter in self._parameters:
                parameter.grad = None

    def _gradient(self, gradient: Tensor) -> Tensor:
        return gradient if self.released else torch.zeros_like(gradient)
