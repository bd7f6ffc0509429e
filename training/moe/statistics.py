"""Per layer: how evenly tokens are spread over the experts, and how many are dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from training.moe.recorder import Decision

__all__ = ["ExpertStatistics"]


class ExpertStatistics:
    """Sums up decisions until ``take``.

    A row holds for each layer: ``load``, each expert's share of the assignments times the number of experts
    (1 is even); ``entropy`` of these shares over its highest value (1 is even, 0 is one expert only); and
    ``dropped``, the share of assignments beyond the capacity.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}
        self._dropped: dict[str, Tensor] = {}

    def add(self, decisions: Iterable[Decision]) -> None:
        """Count the decisions of one batch; nothing waits for the device."""
        for decision in decisions:
            name = decision.router.name
            chosen = decision.indices[decision.counted]
            counts = torch.bincount(chosen.reshape(-1), minlength=decision.router.experts)
            dropped = (~decision.kept[decision.counted]).sum()
            self._counts[name] = self._counts[name] + counts if name in self._counts else counts
            self._dropped[name] = self._dropped[name] + dropped if name in self._dropped else dropped

    def take(self) -> dict[str, dict[str, Any]]:
        """Return the row since the last one, by layer; empty if nothing was counted."""
        row = {name: _layer(counts, self._dropped[name]) for name, counts in self._counts.items()}
        self._counts, self._dropped = {}, {}
        return row


def _layer(counts: Tensor, dropped: Tensor) -> dict[str, Any]:
    total = int(counts.sum())
    shares = counts.double() / max(1, total)
    present = shares[shares > 0]
    entropy = float(-(present * present.log()).sum()) / max(1e-9, float(torch.tensor(len(shares)).log()))
    return {
        "load": [round(float(share) * len(shares), 4) for share in shares],
        "entropy": round(entropy, 4),
        "dropped": round(int(dropped) / max(1, total), 4),
    }
