"""The optimizers there are, by our name, and what each keeps of a parameter."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from checkpoints.errors import ConfigError
from training.config import TrainConfig

__all__ = ["OPTIMIZERS", "Optimizer", "check_optimizer"]


@dataclass(frozen=True)
class Optimizer:
    """One kind of AdamW."""

    trainer_name: str
    """What ``transformers.TrainingArguments.optim`` calls it."""

    state_bytes: float | None
    """Bytes it keeps per trained parameter; None is two numbers in the parameter's own precision."""

    needs_gpu: bool = False


# 8 bits (https://arxiv.org/abs/2110.02861): two bytes, and the scales of blocks of 256 numbers in fp32.
_EIGHT_BIT = 2 * (1 + 4 / 256)

OPTIMIZERS = {
    "adamw": Optimizer("adamw_torch", None),
    "adamw_8bit": Optimizer("adamw_bnb_8bit", _EIGHT_BIT, needs_gpu=True),
    "paged_adamw": Optimizer("paged_adamw_32bit", 8, needs_gpu=True),
    "paged_adamw_8bit": Optimizer("paged_adamw_8bit", _EIGHT_BIT, needs_gpu=True),
}


def check_optimizer(config: TrainConfig) -> None:
    """Refuse an optimizer that this machine, or the device that was chosen, cannot run.

    Raises:
        ConfigError: it needs a CUDA GPU.
    """
    if not OPTIMIZERS[config.optimizer].needs_gpu:
        return
    if config.device == "cpu" or not torch.cuda.is_available():
        reason = "device = cpu" if config.device == "cpu" else "torch finds none here"
        raise ConfigError(
            f"optimizer = {config.optimizer} needs a CUDA GPU, but {reason}: its states are kept in 8 bits "
            "or paged out of GPU memory by bitsandbytes' CUDA kernels; use optimizer = adamw"
        )
