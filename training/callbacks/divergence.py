"""Stops a run whose loss is no longer a number."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from checkpoints.errors import ConfigError

__all__ = ["Divergence"]


class Divergence(TrainerCallback):
    """Raises before such a state is saved, so the last saved one is still good."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the newest loss.

        Raises:
            ConfigError: it is NaN or infinite.
        """
        loss = state.log_history[-1].get("loss")
        if loss is not None and not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} at step {state.global_step}, so training has diverged; "
                f"lower learning_rate ({args.learning_rate:g}), add warm-up, or use dtype = fp32"
            )
