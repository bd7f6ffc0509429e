"""Settings for mixtures of experts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from checkpoints.errors import ConfigError

__all__ = ["MoeSettings"]


@dataclass
class MoeSettings:
    """How routers and experts are trained. Without effect on dense models, unless a field is set."""

    router: Literal["frozen", "trainable", "warmup"] | None = None
    """Train the routers: never, from the first step, or after router_warmup of the steps; none is the
    method's own: trainable for full, else frozen."""

    router_warmup: float | None = None
    """Share of the steps for which router: warmup keeps the routers as they are, above 0 and below 1; none is
    0.1."""

    load_balance_coefficient: float | None = None
    """Weight of the load-balance loss (Switch Transformer, arXiv:2101.03961, eq. 4) beside the token loss,
    in place of the model's own; 0.001 to 0.01 is usual, 0 is no such loss, none is the model's own."""

    expert_capacity_factor: float | None = None
    """While training, each expert takes at most this times its even share of a batch's tokens, and drops the
    rest (GShard, arXiv:2006.16668); 1.2 is an example. None drops nothing."""

    @property
    def warmup_share(self) -> float:
        """Share of the steps that ``router: warmup`` waits for."""
        return 0.1 if self.router_warmup is None else self.router_warmup

    def __post_init__(self) -> None:
        if self.router_warmup is not None and self.router != "warmup":
            raise ConfigError(
                f"moe.router_warmup = {self.router_warmup} is for moe.router = warmup, not {self.router}"
            )
        if self.router_warmup is not None and not 0 < self.router_warmup < 1:
            raise ConfigError(f"moe.router_warmup = {self.router_warmup}: must be above 0 and below 1")
        coefficient = self.load_balance_coefficient
        if coefficient is not None and not (math.isfinite(coefficient) and coefficient >= 0):
            raise ConfigError(f"moe.load_balance_coefficient = {coefficient}: must be 0 or more")
        factor = self.expert_capacity_factor
        if factor is not None and not (math.isfinite(factor) and factor > 0):
            raise ConfigError(f"moe.expert_capacity_factor = {factor}: must be above 0")
