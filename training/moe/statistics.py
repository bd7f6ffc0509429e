"""Per layer: how evenly tokens are spread over the experts, and how many are dropped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.moe.recorder import Decision
from training.ranks import rank_count, sum_of_ranks

__all__ = ["ExpertStatistics"]


@dataclass
class _Sum:
    counts: Tensor
    """int64 ``[experts]``: assignments."""
    dropped: Tensor
    """int64: assignments beyond the capacity."""


class ExpertStatistics:
    """Sums up decisions until ``take``, which adds up those of all ranks."""

    def __init__(self) -> None:
        self._layers: dict[str, _Sum] = {}
        self._balance: list[Tensor] = []

    def add(self, decisions: Iterable[Decision], balance: Tensor | None = None) -> None:
        """Count the decisions of one batch; nothing waits for the device.

        Args:
            decisions: one per router.
            balance: the batch's load-balance loss, without its coefficient.
        """
        if balance is not None:
            self._balance.append(balance.detach())
        for decision in decisions:
            chosen = decision.indices[decision.counted]
            counts = torch.bincount(chosen.reshape(-1), minlength=decision.router.experts)
            dropped = (~decision.kept[decision.counted]).sum()
            before = self._layers.get(decision.router.name)
            if before is not None:
                counts, dropped = before.counts + counts, before.dropped + dropped
            self._layers[decision.router.name] = _Sum(counts, dropped)

    def take(self) -> tuple[dict[str, dict[str, Any]], float | None]:
        """Return what was counted since the last time, by layer, and the mean load-balance loss, if any.

        Every rank must ask; all get the same.

        A layer has ``load``: each expert's share of the assignments times the number of experts (1 is even);
        ``entropy`` of these shares over its highest value (1 is even, 0 is one expert only); and ``dropped``:
        the share of assignments beyond the capacity.
        """
        for total in self._layers.values():
            total.counts, total.dropped = sum_of_ranks(total.counts), sum_of_ranks(total.dropped)
        layers = {name: _layer(total) for name, total in self._layers.items()}
        balance = None
        if self._balance:
            balance = float(sum_of_ranks(torch.stack(self._balance).mean())) / rank_count()
        self._layers, self._balance = {}, []
        return layers, balance


def _layer(total: _Sum) -> dict[str, Any]:
    count, experts = int(total.counts.sum()), len(total.counts)
    shares = [int(value) / max(1, count) for value in total.counts]
    entropy = -sum(share * math.log(share) for share in shares if share)
    return {
        "load": [round(share * experts, 4) for share in shares],
        "entropy": round(entropy / math.log(experts), 4) if experts > 1 else 1.0,
        "dropped": round(int(total.dropped) / max(1, count), 4),
    }
