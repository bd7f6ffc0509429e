"""The order in which rows are trained on: the same on every rank, and after a resume.

It follows from the seed and the epoch alone, not from the state of a random generator. So each rank draws the
same order and takes its own batches from it, and a resumed run skips what was trained on and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

__all__ = ["RowSampler", "label_shares"]


class RowSampler(Sampler[int]):
    """Shuffles rows, each epoch in another way; balanced by label where there are labels.

    An epoch has as many draws as there are rows. A label's number of draws is its share of them, but for
    rounding; its rows are drawn without repetition until each had its turn, then again from the start.
    """

    def __init__(
        self, rows: int, seed: int, *, labels: npt.NDArray[np.int32] | None = None, alpha: float = 1.0
    ) -> None:
        """Make the order of ``rows`` rows.

        Args:
            rows: how many there are, at least one.
            seed: of the order, 0 or more.
            labels: the label of each row, int32 ``[rows]``; None shuffles and draws each row once.
            alpha: see :func:`label_shares`.
        """
        self._count = rows
        self._seed = seed
        self._epoch = 0
        self._groups: list[tuple[npt.NDArray[np.int64], int]] | None = None
        if labels is not None:
            found, counts = np.unique(labels, return_counts=True)
            draws = _apportion(label_shares(counts.tolist(), alpha), rows)
            self._groups = [
                (np.flatnonzero(labels == label), draw) for label, draw in zip(found, draws, strict=True)
            ]

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of ``epoch``, from 0, next time."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        chance = np.random.default_rng([self._seed, self._epoch])
        if self._groups is None:
            yield from map(int, chance.permutation(self._count))
            return
        drawn = []
        for rows, draws in self._groups:
            passes, rest = divmod(draws, len(rows))
            drawn += [np.tile(rows, passes), chance.permutation(rows)[:rest]]
        yield from map(int, chance.permutation(np.concatenate(drawn)))


def label_shares(counts: Sequence[int], alpha: float) -> list[float]:
    """Return each label's share of the draws: proportional to its number of rows to the power ``alpha``.

    0 gives every label the same, 1 leaves each its own share. XLM-R balances languages so, with 0.3 (Conneau
    et al. 2020, https://arxiv.org/abs/1911.02116).

    Args:
        counts: rows of each label, each at least 1.
        alpha: from 0 to 1.
    """
    weights = [count**alpha for count in counts]
    return [weight / sum(weights) for weight in weights]


def _apportion(shares: Sequence[float], draws: int) -> list[int]:
    """Round ``shares`` of ``draws`` to whole numbers with the same sum: the largest remainders go up."""
    whole = [int(share * draws) for share in shares]
    left = draws - sum(whole)
    by_remainder = sorted(range(len(shares)), key=lambda index: whole[index] - shares[index] * draws)
    for index in by_remainder[:left]:
        whole[index] += 1
    return whole
