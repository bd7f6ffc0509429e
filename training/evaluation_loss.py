"""The loss of an evaluation: the mean over its tokens, however they come in batches."""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.encoding import IGNORED
from training.ranks import sum_of_ranks

__all__ = ["TokenMean"]


class TokenMean:
    """Adds up what batches lost, by the number of tokens that each had to predict."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def add(self, loss: Tensor, labels: Tensor) -> None:
        """Take a batch; waits for no device.

        Args:
            loss: mean over the batch's tokens, a scalar.
            labels: int64 ``[sequences, length]``, of which the first of each is not predicted.
        """
        count = (labels[:, 1:] != IGNORED).sum().to(loss.device)
        # Of nothing but filler, as one of several ranks may have, the mean is no number.
        lost = torch.where(
            count > 0, loss.detach().float() * count, torch.zeros_like(loss, dtype=torch.float32)
        )
        sums = torch.stack([lost.double(), count.double()])
        self._sums = sums if self._sums is None else self._sums + sums

    def result(self) -> float:
        """Return the mean over the tokens of all ranks, in nats; each must ask, after a batch or more."""
        assert self._sums is not None
        lost, count = sum_of_ranks(self._sums).tolist()
        return float(lost / count)
