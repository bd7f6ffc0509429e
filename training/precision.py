"""Which precision weights are trained in, and whether autocast sets that of the computation."""

from __future__ import annotations

from typing import Literal

from training.config import TrainConfig

__all__ = ["autocasts", "base_dtype"]


def base_dtype(config: TrainConfig) -> Literal["bf16", "fp16", "fp32"]:
    """Return the precision to load the base in; ``config.dtype`` is no longer "auto".

    Full fine-tuning steps through the weights themselves. At a learning rate of 1e-5 most steps are smaller
    than half the distance between two bf16 numbers and would be rounded away.
    """
    if config.method == "full" and config.full.weights == "fp32":
        return "fp32"
    return "fp32" if config.dtype == "auto" else config.dtype


def autocasts(config: TrainConfig) -> bool:
    """Whether the computation is in bf16 or fp16 by autocast.

    So for full fine-tuning in fp32, and on an NF4 base, whose tensors that are not packed are in fp32. A bf16
    base computes in bf16 by itself. In fp16 always: autocast leaves out what overflows in it.
    """
    if config.dtype == "fp16":
        return True
    if config.dtype != "bf16":
        return False
    return config.base_quantization is not None or base_dtype(config) == "fp32"
