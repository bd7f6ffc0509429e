"""The Trainer that every run uses: ``transformers.Trainer`` with its rows in our order."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Trainer

from training.data.sampling import RowSampler
from training.ewc.penalty import Penalty

__all__ = ["OrderedTrainer"]


class OrderedTrainer(Trainer):
    """Takes the rows in our order; that of transformers hangs on the state of random generators."""

    row_sampler: RowSampler
    """Set before ``train``."""
    penalty: Penalty | None = None
    """What is minimised beside the loss."""

    def _get_train_sampler(self, train_dataset: Any = None) -> RowSampler:
        return self.row_sampler

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute a batch's gradients; with the last of an optimizer step, those of the penalty as well."""
        loss = super().training_step(*args, **kwargs)
        if self.penalty is not None and self.accelerator.sync_gradients:
            self.penalty.add_gradients()
        return loss

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A state of the last step, resumed within an epoch: transformers 5.23 would train one step more.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)
