"""Gaps between tokens of running streams, before and while somebody else's long prompt is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from benchmarks.traces import Trace, percentile

__all__ = ["stalls_of"]


def stalls_of(streams: Sequence[Trace], long: Trace) -> dict[str, float]:
    """Return gaps in milliseconds and their ratios.

    ``median_ms`` is over the gaps that ended before the long prompt was sent and began after the last
    stream had its first token; ``p99_ms`` is over all gaps of the streams from then on;
    ``p99_during_ms`` and ``max_ms`` over those that overlap the prompt's prefill.

    Raises:
        ValueError: the long prompt did not arrive among running streams.
    """
    begin = max(trace.arrivals[0][0] for trace in streams)
    sent, read = long.start, long.arrivals[0][0]
    gaps = [
        (earlier, later)
        for trace in streams
        for (earlier, _), (later, _) in pairwise(trace.arrivals)
        if earlier >= begin
    ]
    before = [1e3 * (later - earlier) for earlier, later in gaps if later <= sent]
    during = [1e3 * (later - earlier) for earlier, later in gaps if later > sent and earlier < read]
    if not before or not during:
        raise ValueError("the long prompt did not arrive among running streams")
    median, p99 = percentile(before, 50), percentile([1e3 * (b - a) for a, b in gaps], 99)
    return {
        "median_ms": median,
        "p99_ms": p99,
        "p99_during_ms": percentile(during, 99),
        "max_ms": max(during),
        "prefill_ms": 1e3 * (read - sent),
        "p99_over_median": p99 / median,
        "p99_during_over_median": percentile(during, 99) / median,
    }
