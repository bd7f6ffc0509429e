"""Percentiles of a histogram beside those of the sorted samples."""

from __future__ import annotations

import math
import random

import pytest
from hdrh.histogram import HdrHistogram

from loadtests.metrics.distribution import Distribution

PERCENTS = (1, 25, 50, 90, 95, 99, 99.9, 100)


def exact(ordered: list[int], percent: float) -> int:
    return ordered[max(1, math.ceil(round(percent / 100 * len(ordered), 6))) - 1]


@pytest.mark.parametrize("count", [1, 2, 10, 997, 1000])
def test_small_numbers_are_exact(count: int) -> None:
    values = sorted(random.Random(3).choices(range(2000), k=count))
    found = Distribution.of(values)
    assert found.percentiles(PERCENTS) == [exact(values, percent) for percent in PERCENTS]


def test_large_numbers_are_at_most_a_thousandth_below_the_nearest_rank() -> None:
    chance = random.Random(7)
    values = sorted(round(chance.lognormvariate(18, 1.5)) for _ in range(5000))  # around 66 ms
    found = Distribution.of(values)
    for percent in PERCENTS:
        wanted = exact(values, percent)
        assert 0.999 * wanted <= found.percentile(percent) <= wanted
    summary = found.summary()
    assert summary is not None
    assert (summary.count, summary.min, summary.max) == (5000, values[0], values[-1])
    assert summary.mean == round(sum(values) / 5000, 1)


def test_no_sample_is_no_summary() -> None:
    assert Distribution().summary() is None
    zeros = Distribution.of([0, 0]).summary()
    assert zeros is not None
    assert (zeros.count, zeros.p50, zeros.max) == (2, 0, 0)


@pytest.mark.parametrize("digits", [2, 3])
def test_many_samples_at_once_are_those_samples_one_by_one(digits: int) -> None:
    chance = random.Random(5)
    samples = [
        0,
        1,
        255,
        256,
        2047,
        2048,
        *(round(chance.lognormvariate(16, 4)) % 10**13 for _ in range(999)),
    ]
    at_once, one_by_one = Distribution(digits), Distribution(digits)
    at_once.extend([])
    at_once.extend(samples[:400])
    at_once.extend(samples[400:])
    for sample in samples:
        one_by_one.add(sample)
    assert at_once.summary() == one_by_one.summary()
    with pytest.raises(ValueError, match="a sample of -1 is not between 0 and"):
        at_once.extend([5, -1])
    assert at_once.summary() == one_by_one.summary()


@pytest.mark.parametrize("sample", [-1, 10**15])
def test_a_sample_out_of_range_is_not_lost_in_silence(sample: int) -> None:
    with pytest.raises(ValueError, match="is not between 0 and"):
        Distribution.of([sample])


def test_distributions_merge_exactly() -> None:
    chance = random.Random(1)
    parts = [[round(chance.expovariate(1e-8)) for _ in range(size)] for size in (1, 400, 3000)]
    merged = Distribution()
    for part in parts:
        merged.merge(Distribution.of(part))
    merged.merge(Distribution())
    together = Distribution.of(sample for part in parts for sample in part)
    assert merged.summary() == together.summary()
    assert list(merged.buckets()) == list(together.buckets())


def test_the_histogram_in_the_results_is_one_that_any_library_reads_and_adds() -> None:
    values = [random.Random(2).randrange(10**9) for _ in range(100)]
    one, two = Distribution.of(values[:30]).summary(), Distribution.of(values[30:]).summary()
    assert one is not None
    assert two is not None
    read = HdrHistogram.decode(one.histogram)
    read.decode_and_add(two.histogram)
    assert read.get_total_count() == 100
    found = dict(Distribution.of(values).buckets())
    for value, count in found.items():
        assert read.get_count_at_value(value) == count
