"""What the rest of training asks about a method without importing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Traits"]


@dataclass(frozen=True)
class Traits:
    """Facts about one method; each method's ``config`` module has them as ``TRAITS``."""

    learning_rate: float
    """Where the user gives none."""

    result: Literal["adapter", "checkpoint"] = "adapter"
    """What a run leaves, and under which name in OUTPUT."""

    takes_quantized_base: bool = True
    """Whether the base may be NF4: only weights that stay frozen can be."""

    merges: bool = True
    """Whether ``trimaran merge`` has something to do, and can."""
