"""Gaps between arrivals at a mean rate of one. ``rate.py`` stretches them to the rate of the run."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

__all__ = ["ARRIVALS", "GAPS", "places"]

GAPS: dict[str, Callable[[Random, float], float]] = {
    "constant": lambda random, burstiness: 1.0,
    # Independent users of whom there are many: the gaps are exponential.
    "poisson": lambda random, burstiness: random.expovariate(1.0),
    # Shape k: the gaps' coefficient of variation is 1 / sqrt(k). 1 is Poisson, below it there are bursts.
    "gamma": lambda random, burstiness: random.gammavariate(burstiness, 1.0 / burstiness),
}
"""Name of the process -> one gap with the mean 1, given a source of randomness and the burstiness."""

ARRIVALS = ("closed", *GAPS, "trace")
"""Everything that ``--arrivals`` takes."""


def places(process: str, burstiness: float, expected: float, random: Random) -> list[float]:
    """Return ascending places of arrivals on an axis where one unit holds one expected arrival.

    Args:
        process: a key of ``GAPS``. ``constant`` begins at 0, the others after their first gap.
        burstiness: shape of the gamma distribution; the other processes ignore it.
        expected: where to end.
        random: the only source of randomness.
    """
    gap = GAPS[process]
    found: list[float] = [] if process != "constant" else [0.0]
    place = 0.0
    while (place := place + gap(random, burstiness)) < expected:
        found.append(place)
    return found
