"""The Trainer that every run uses: ``transformers.Trainer`` with its rows in our order."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Sampler
from transformers import Trainer

from training.ranks import wait

__all__ = ["OrderedTrainer"]


class OrderedTrainer(Trainer):
    """Takes the rows in our order; that of transformers hangs on the state of random generators."""

    row_sampler: Sampler[int]
    """Set before ``train``."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.row_sampler

    def _save_rng_state(self, output_dir: str) -> None:
        # Each rank writes its own; what the first writes next says that the state is complete.
        super()._save_rng_state(output_dir)
        wait()

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A state of the last step, resumed within an epoch: transformers 5.23 would train one step more.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)
