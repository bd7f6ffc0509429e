"""A Trainer whose steps know of routers: load-balance loss, capacity, and what experts got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from training.moe.balance import load_balance_loss
from training.moe.config import MoeSettings
from training.moe.recorder import Decision, RouterRecorder
from training.moe.routers import Router
from training.moe.statistics import ExpertStatistics

__all__ = ["MoeTrainer"]


class MoeTrainer(Trainer):
    """Adds to ``transformers.Trainer`` what a mixture of experts needs.

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
        """Return the token loss and, in training, the weighted load-balance loss on top of it."""
        with self._recorder.recording(inputs.get("attention_mask")) as decisions:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not model.training:
            return result
        self._statistics.add(decisions)
        if self._moe.load_balance_coefficient == 0:
            return result
        extra = self._moe.load_balance_coefficient * _mean_balance_loss(decisions)
        # The token losses of accumulated batches are parts of one sum; this one is a mean of each.
        extra = extra / self.current_gradient_accumulation_steps
        if return_outputs:
            loss, outputs = result
            return loss + extra, outputs
        return result + extra


def _mean_balance_loss(decisions: Sequence[Decision]) -> Tensor:
    losses = [
        load_balance_loss(one.logits, one.indices, one.counted, sigmoid=one.router.scores_by_sigmoid)
        for one in decisions
    ]
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss.to(total.device)  # layers may lie on several devices
    return total / len(losses)
