"""Weights of layers that read the same input, as those of one layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["side_by_side"]


def side_by_side(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return weights or biases of several layers one after the other, without a copy where there is one."""
    return values[0].detach() if len(values) == 1 else torch.cat([value.detach() for value in values])
