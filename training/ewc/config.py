"""Settings of elastic weight consolidation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from checkpoints.errors import ConfigError

__all__ = ["EwcSettings"]


@dataclass
class EwcSettings:
    """Elastic weight consolidation: remember what an earlier run learned. Off unless a field is set."""

    save: bool = False
    """After training, estimate which weights this run's rows depend on, and save it in OUTPUT/ewc."""

    samples: int = 256
    """Training rows to estimate it from, chosen by the seed; one backward pass each."""

    from_run: Path | None = None
    """OUTPUT of the earlier run, trained with ewc.save, whose result this run starts from."""

    weight: float = 1000.0
    """How much the earlier run's loss counts beside the new one; 0 is not at all. By the formula 1 is as
    much, but it leaves out how weights act together: try 1000 to 10000 first."""

    decay: float = 1.0
    """With save and from_run: what is left of the earlier runs' share in what is saved, 0 to 1."""

    def __post_init__(self) -> None:
        if self.from_run is not None:
            self.from_run = Path(self.from_run)
        if self.samples < 1:
            raise ConfigError(f"ewc.samples = {self.samples}: must be 1 or more")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ConfigError(f"ewc.weight = {self.weight}: must be 0 or more")
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"ewc.decay = {self.decay}: must be from 0 to 1")
