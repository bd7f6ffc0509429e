"""The distribution of one metric over a run, as a histogram of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtests.durations import NS_PER_SECOND

__all__ = ["Distribution", "Summary"]

_HIGHEST = 24 * 3600 * NS_PER_SECOND
_SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True)
class Summary:
    """A distribution in a few numbers. Times are integer nanoseconds. Count, mean, min and max are exact."""

    count: int
    mean: float
    min: int
    p50: int
    p90: int
    p95: int
    p99: int
    p999: int
    """99.9 % of the samples are not above it."""
    max: int
    histogram: str
    """The whole distribution: an HdrHistogram (V2, compressed, base64), for any of its libraries."""

    def as_dict(self) -> dict[str, float | str]:
        """Return the fields as JSON takes them."""
        return asdict(self)


class Distribution:
    """Samples from 0 to a day in nanoseconds, in an HdrHistogram (Tene, hdrhistogram.org) of three digits.

    However many samples there are, it takes 300 kB. Percentiles are nearest-rank and at most 0.1 % below a
    sample that was measured; below 2,048 they are exact. Two distributions merge exactly: the sum is the
    distribution of all samples.

    Args:
        digits: two take 40 kB, and percentiles are at most 1 % below a sample. Only the same merge.
    """

    def __init__(self, digits: int = _SIGNIFICANT_DIGITS) -> None:
        self._histogram = HdrHistogram(1, _HIGHEST, digits)
        self._total = 0
        self._min = _HIGHEST
        self._max = 0

    @classmethod
    def of(cls, samples: Iterable[int]) -> Distribution:
        """Return the distribution of some samples."""
        found = cls()
        found.extend(list(samples))
        return found

    @classmethod
    def stored(cls, summary: Mapping[str, Any]) -> Distribution:
        """Return the distribution that a ``Summary`` in results.json describes."""
        found = cls()
        found._histogram = HdrHistogram.decode(summary["histogram"])
        found._total = round(summary["mean"] * summary["count"])
        found._min, found._max = summary["min"], summary["max"]
        return found

    @property
    def count(self) -> int:
        """Number of samples."""
        count: int = self._histogram.total_count
        return count

    @property
    def min(self) -> int:
        """Smallest sample, exact. There must be one."""
        return self._min

    @property
    def max(self) -> int:
        """Largest sample, exact. There must be one."""
        return self._max

    def add(self, sample: int) -> None:
        """Take a sample.

        Raises:
            ValueError: it is negative or above a day.
        """
        if not self._histogram.record_value(sample):
            raise ValueError(f"a sample of {sample} is not between 0 and {_HIGHEST}")
        self._total += sample
        self._min = min(self._min, sample)
        self._max = max(self._max, sample)

    def extend(self, samples: Sequence[int]) -> None:
        """Take several samples, as ``add`` would one by one, in a fraction of the time.

        Every token of a run passes here twice, on the cores that the load itself needs.

        Raises:
            ValueError: one is negative or above a day; none is taken then.
        """
        if not samples:
            return
        least, most = min(samples), max(samples)
        if least < 0 or most > _HIGHEST:
            raise ValueError(f"a sample of {least if least < 0 else most} is not between 0 and {_HIGHEST}")
        histogram = self._histogram
        counts, mask = histogram.counts, histogram.sub_bucket_mask
        magnitude = histogram.sub_bucket_half_count_magnitude
        # Of a value only the first bits count (``magnitude`` of them, behind the leading one).
        for sample in samples:
            shift = (sample | mask).bit_length() - 1 - magnitude
            counts[(shift << magnitude) + (sample >> shift)] += 1
        histogram.total_count += len(samples)
        histogram.min_value = min(histogram.min_value, least)
        histogram.max_value = max(histogram.max_value, most)
        self._total += sum(samples)
        self._min = min(self._min, least)
        self._max = max(self._max, most)

    def _index(self, sample: int) -> int:
        """Return the place of a sample's bucket, as ``extend`` has it."""
        magnitude = self._histogram.sub_bucket_half_count_magnitude
        shift = (sample | self._histogram.sub_bucket_mask).bit_length() - 1 - magnitude
        return int((shift << magnitude) + (sample >> shift))

    def merge(self, other: Distribution) -> None:
        """Take all samples of another distribution."""
        if other.count:
            self._histogram.add(other._histogram)
            self._total += other._total
            self._min = min(self._min, other._min)
            self._max = max(self._max, other._max)

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Yield (smallest sample it may hold, samples) of every bucket that is not empty, ascending."""
        if not self.count:
            return
        first, last = self._index(self._min), self._index(self._max)  # most of the others are empty
        for index, count in enumerate(self._histogram.counts[first : last + 1], first):
            if count:
                yield max(self._histogram.get_value_from_index(index), self._min), count

    def percentile(self, percent: float) -> int:
        """Return the nearest-rank percentile: at least ``percent`` % of the samples do not exceed it.

        The rank is ``ceil(percent / 100 * n)``. There must be a sample.
        """
        return self.percentiles((percent,))[0]

    def percentiles(self, percents: Iterable[float]) -> list[int]:
        """Return several percentiles, given in ascending order. There must be a sample."""
        found: list[int] = []
        buckets, seen, value = self.buckets(), 0, self._min
        for percent in percents:
            # 99.9 is no binary fraction: a product that is whole but for the last bit counts as whole.
            rank = max(1, math.ceil(round(percent / 100 * self.count, 6)))
            if rank >= self.count:
                found.append(self._max)
                continue
            while seen < rank:
                value, count = next(buckets)
                seen += count
            found.append(value)
        return found

    def summary(self) -> Summary | None:
        """Return the numbers of the report, or None when there is no sample."""
        if not self.count:
            return None
        p50, p90, p95, p99, p999 = self.percentiles((50, 90, 95, 99, 99.9))
        return Summary(
            count=self.count,
            mean=round(self._total / self.count, 1),
            min=self._min,
            p50=p50,
            p90=p90,
            p95=p95,
            p99=p99,
            p999=p999,
            max=self._max,
            histogram=self._histogram.encode().decode("ascii"),
        )
