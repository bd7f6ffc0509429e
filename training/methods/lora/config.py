"""Settings of LoRA."""

from __future__ import annotations

import math
from dataclasses import dataclass

from checkpoints.errors import ConfigError
from training.methods.traits import Traits

__all__ = ["ALL_LINEAR", "TRAITS", "LoraSettings"]

ALL_LINEAR = "all-linear"

TRAITS = Traits(learning_rate=2e-4)


@dataclass
class LoraSettings:
    """Low-rank adapters: ``W x + (alpha / rank) B A x`` with only A and B trained."""

    rank: int = 16
    """Rank of the update of each weight: the inner dimension of A and B."""

    alpha: float = 32.0
    """Scale of the update; it is multiplied by alpha / rank."""

    dropout: float = 0.0
    """Probability of dropping an input of the adapter while training, 0 to below 1."""

    target_modules: str | list[str] = ALL_LINEAR
    """Names of the layers to adapt, such as [q_proj, v_proj]; all-linear is all of them but the head."""

    rslora: bool = False
    """Multiply the update by alpha / sqrt(rank) instead: high ranks then learn as fast as low ones."""

    dora: bool = False
    """Train the magnitude of each weight apart from its direction: better at low ranks, slower."""

    experts: bool = False
    """Adapt the routed experts of a mixture as well, which are no linear layers; needs dropout 0."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank = {self.rank}: must be 1 or more")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigError(f"lora.alpha = {self.alpha}: must be above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout = {self.dropout}: must be from 0 to below 1")
        if self.experts and self.dropout:
            raise ConfigError(
                f"lora.dropout = {self.dropout} and lora.experts clash: PEFT adapts the experts' weights "
                "themselves, so there is no input to drop; set lora.dropout = 0, or leave lora.experts out"
            )
        if self.experts and self.dora:
            raise ConfigError(
                "lora.dora = true and lora.experts clash: PEFT knows DoRA for layers only, and fused experts "
                "are none; set lora.dora = false, or leave lora.experts out"
            )
        if not self.target_modules:
            raise ConfigError("lora.target_modules is empty: name layers, or say all-linear")
