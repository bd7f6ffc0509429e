"""Settings of full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from checkpoints.errors import ConfigError
from training.methods.traits import Traits

__all__ = ["TRAITS", "FullSettings"]

TRAITS = Traits(learning_rate=1e-5, result="checkpoint", takes_quantized_base=False, merges=False)


@dataclass
class FullSettings:
    """Full fine-tuning: every weight is trained."""

    weights: Literal["fp32", "bf16"] = "fp32"
    """Precision of the weights while they are trained: fp32 keeps small updates, beside computation in dtype;
    bf16 takes half the memory and loses updates below 1/256 of a weight."""

    def __post_init__(self) -> None:
        if self.weights not in ("fp32", "bf16"):
            raise ConfigError(f"full.weights = {self.weights!r}: must be fp32 or bf16")
