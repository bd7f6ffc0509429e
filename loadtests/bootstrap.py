"""How far chance alone moves a number of a run: the block bootstrap.

Requests of one run are not independent: those that were in flight together waited for each other. So
whole blocks of neighbours are drawn, with replacement, until there are as many requests as in the run
(the circular block bootstrap: Politis and Romano, 1992), blocks of n^(1/3) requests (Hall, Horowitz and
Jing, On blocking rules for the bootstrap with dependent data, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Draws", "resampled_mean", "resampled_percentiles"]

_MOST_RESAMPLES, _FEWEST_RESAMPLES = 1000, 100
_MOST_WORK = 200_000_000

Draws = NDArray[np.float64]
"""The number as it came out in each resampled run."""


def resampled_percentiles(
    values: NDArray[np.int64], owners: NDArray[np.int64], requests: int, percents: Sequence[float], seed: int
) -> list[Draws]:
    """Return nearest-rank percentiles of every resampled run, one array per percentile.

    Args:
        values: [samples] all samples of a metric.
        owners: [samples] the request that each sample belongs to, counted in the order of asking. A request
            is drawn with all its samples.
        requests: how many requests the run had.
        percents: 0 to 100 each.
        seed: of the draws.
    """
    order = np.argsort(values, kind="stable")
    ordered, owner_of = values[order], owners[order]
    found: list[list[float]] = []
    for drawn in _draws(requests, len(values), seed):
        below = np.cumsum(drawn[owner_of])
        if below[-1] == 0:  # only requests without a sample were drawn
            continue
        ranks = [max(1, math.ceil(round(percent / 100 * float(below[-1]), 6))) for percent in percents]
        found.append([float(value) for value in ordered[np.searchsorted(below, ranks)]])
    return [np.asarray(column) for column in zip(*found, strict=True)]


def resampled_mean(values: NDArray[np.float64], seed: int) -> Draws:
    """Return the mean of every resampled run.

    Args:
        values: [n] a number per piece of the run, in order.
        seed: of the draws.
    """
    return np.asarray(
        [float(values @ drawn) / len(values) for drawn in _draws(len(values), len(values), seed)]
    )


def _draws(count: int, work: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield, for each resampled run, [count] how often each member was drawn."""
    random = np.random.default_rng(seed)
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    resamples = max(_FEWEST_RESAMPLES, min(_MOST_RESAMPLES, _MOST_WORK // max(work, 1)))
    for _ in range(resamples):
        first = random.integers(0, count, size=blocks)
        members = ((first[:, None] + np.arange(length)) % count).ravel()[:count]
        yield np.bincount(members, minlength=count)
