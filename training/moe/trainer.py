"""A Trainer whose steps know of routers: load-balance loss, capacity, and what experts got."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from checkpoints.errors import ConfigError
from checkpoints.routers import Router
from training.moe.balance import load_balance_loss
from training.moe.config import MoeSettings
from training.moe.own_balance import without_own_balance_loss
from training.moe.recorder import Decision, RouterRecorder
from training.moe.statistics import ExpertStatistics
from training.ordered_trainer import OrderedTrainer
from training.real_tokens import real_tokens

__all__ = ["MoeTrainer"]


class MoeTrainer(OrderedTrainer):
    """Adds to every run's trainer what a mixture of experts needs.

    Args:
        routers: the model's, from ``find_routers``; not empty.
        moe: the settings.
        statistics: takes what is counted.
        **rest: the Trainer's own.
    """

    def __init__(
        self, *, routers: Sequence[Router], moe: MoeSettings, statistics: ExpertStatistics, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self._moe = moe
        self._statistics = statistics
        self._recorder = RouterRecorder(routers, moe.expert_capacity_factor)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the token loss and, in training, the weighted load-balance loss on top of it.

        Raises:
            ConfigError: a coefficient is set, and the routers' logits cannot be read.
        """
        coefficient = self._moe.load_balance_coefficient
        replaced = without_own_balance_loss(self.model.config) if coefficient is not None else nullcontext()
        with replaced, self._recorder.recording(real_tokens(inputs)) as decisions:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not model.training:
            return result
        if not decisions:
            if coefficient:
                raise ConfigError(
                    f"moe.load_balance_coefficient = {coefficient}: the routers of this model do not give "
                    "logits, weights and indices, so there is no load to balance; leave the setting out"
                )
            return result
        with torch.set_grad_enabled(bool(coefficient)):
            balance = _mean_balance_loss(decisions)
        self._statistics.add(decisions, balance)
        if not coefficient:
            return result
        extra = coefficient * balance
        if self.model_accepts_loss_kwargs and num_items_in_batch is not None:
            # The token losses of accumulated batches are parts of one sum; this one is a mean of each. (Else
            # the Trainer divides the whole loss.)
            extra = extra / self.current_gradient_accumulation_steps
        if return_outputs:
            loss, outputs = result
            return loss + extra.to(loss.device), outputs
        return result + extra.to(result.device)


def _mean_balance_loss(decisions: Sequence[Decision]) -> Tensor:
    losses = [
        load_balance_loss(one.logits, one.indices, one.counted, sigmoid=one.router.scores_by_sigmoid)
        for one in decisions
    ]
    # Layers may lie on several devices.
    return torch.stack([loss.to(losses[0].device) for loss in losses]).mean()
