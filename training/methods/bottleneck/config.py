"""Settings of bottleneck adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from checkpoints.errors import ConfigError
from training.methods.traits import Traits

__all__ = ["TRAITS", "BottleneckSettings"]

TRAITS = Traits(learning_rate=3e-4, merges=False)


@dataclass
class BottleneckSettings:
    """Small networks behind attention and MLP of each layer: ``h + up(activation(down(h)))``."""

    size: int = 64
    """Width of the bottleneck: what ``down`` maps the hidden state to."""

    activation: Literal["relu", "gelu", "silu"] = "gelu"
    """Non-linearity inside the bottleneck."""

    dropout: float = 0.0
    """Probability of dropping an input of the adapter while training, 0 to below 1."""

    placement: Literal["attention", "mlp", "both"] = "both"
    """Behind which parts of each decoder layer there is an adapter."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"bottleneck.size = {self.size}: must be 1 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"bottleneck.dropout = {self.dropout}: must be from 0 to below 1")
        for name, accepted in (
            ("activation", ("relu", "gelu", "silu")),
            ("placement", ("attention", "mlp", "both")),
        ):
            value = getattr(self, name)
            if value not in accepted:
                raise ConfigError(f"bottleneck.{name} = {value!r}: must be one of {', '.join(accepted)}")
