"""Where a random number falls in a cumulative distribution."""

from __future__ import annotations

import torch

__all__ = ["places"]


def places(cumulative: torch.Tensor, mass: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Return int64 ``[n, 1]``: each row's first place whose cumulative mass exceeds ``mass``.

    Args:
        cumulative: float64 ``[n, width]``, rising along each row.
        mass: float64 ``[n, 1]``, at least 0. One that rounding took to ``total`` or beyond falls on the last
            place that has any.
        total: float64 ``[n, 1]``, one of the row's cumulative masses; NaN in a row of NaN, where any place
            is returned.
    """
    below = torch.minimum(mass, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, below, right=True).clamp_(max=cumulative.shape[-1] - 1)
