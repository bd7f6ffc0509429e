"""The search and the knee against systems whose capacity is known by formula."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import pytest

from loadtests.sweep.config import SweepConfig
from loadtests.sweep.knee import knee
from loadtests.sweep.search import Search

CAPACITY = 20.0
LIMIT_S = 0.5
# In an M/M/1 queue the time in the system is exponential with the mean 1 / (capacity - rate).
HIGHEST_RATE = CAPACITY - math.log(20) / LIMIT_S


@dataclass(frozen=True)
class Made:
    load: float
    outcome: str
    throughput: float
    latency_ns: float | None
    requests: int = 1000


def mm1(rate: float, noise: float = 1.0) -> Made:
    """A point of an M/M/1 queue; its p95 is multiplied by ``noise``."""
    p95_s = math.log(20) / (CAPACITY - rate) * noise if rate < CAPACITY else 60.0
    outcome = "passed" if p95_s <= LIMIT_S else "failed"
    return Made(rate, outcome, 10 * min(rate, CAPACITY), 1e9 * p95_s)


def closed(users: float, slots: int = 8, outcome: str = "passed") -> Made:
    """A point of a closed loop on a server of ``slots``: by Little's law latency is users over throughput."""
    throughput = 10.0 * min(users, slots)
    return Made(users, outcome, throughput, 1e9 * users / throughput)


def run(search: Search, measure: Callable[[float], Made], most: int = 60) -> list[Made]:
    trials: list[Made] = []
    while (load := search.next_load(trials)) is not None:
        assert len(trials) < most, [trial.load for trial in trials]
        trials.append(measure(load))
    return trials


@pytest.mark.parametrize("start", [0.1, 1, 5, 14, 19, 300])
@pytest.mark.parametrize("factor", [1.5, 2, 4])
def test_the_highest_rate_is_found_within_the_precision(start: float, factor: float) -> None:
    search = Search(start=start, factor=factor, lowest=0.1, precision=0.05)
    trials = run(search, mm1)
    found = search.conclude(trials)
    assert found.ended_by == "limit"
    assert found.found is not None
    assert found.first_bad is not None
    assert found.found <= HIGHEST_RATE < found.first_bad <= 1.06 * found.found
    assert len(trials) <= 2 + math.log(300 / HIGHEST_RATE * 150, factor) + math.log2(factor / 0.05)
    assert len({trial.load for trial in trials}) == len(trials)  # no load twice


def test_users_are_whole_and_neighbours_end_it() -> None:
    search = Search(start=1, whole=True, lowest=1, precision=0.01)
    trials = run(search, lambda users: closed(users, outcome="passed" if users <= 11 else "failed"))
    assert [trial.load for trial in trials] == [1, 2, 4, 8, 16, 12, 10, 11]
    assert search.conclude(trials).found == 11


def test_saturation_ends_the_growth_where_no_limit_breaks() -> None:
    search = Search(start=1, whole=True)
    trials = run(search, closed)
    assert [trial.load for trial in trials] == [1, 2, 4, 8, 16]
    found = search.conclude(trials)
    assert (found.ended_by, found.saturated_at, found.first_bad) == ("saturation", 16, None)
    # ... but not below a load that is required: its limits are the ones to break.
    required = Search(start=1, whole=True, required=60)
    assert [trial.load for trial in run(required, closed)][-1] == 64


def test_throughput_that_grows_or_latency_that_does_not_is_no_saturation() -> None:
    search = Search(start=1, whole=True, highest=100)
    trials = run(search, lambda users: closed(users, slots=1000))
    assert search.conclude(trials).ended_by == "highest"
    assert trials[-1].load == 100


def test_the_lowest_load_that_is_bad_ends_it() -> None:
    search = Search(start=4, lowest=0.5)
    trials = run(search, lambda rate: Made(rate, "failed", 1.0, 60e9))
    assert [trial.load for trial in trials] == [4, 2, 1, 0.5]
    assert search.conclude(trials).ended_by == "nothing"
    assert search.conclude(trials).found is None


def test_an_invalid_point_ends_the_growth_and_is_never_the_answer() -> None:
    search = Search(start=1, precision=0.2)

    def measure(rate: float) -> Made:
        made = mm1(rate)
        return made if rate < 9 else Made(rate, "invalid", made.throughput, made.latency_ns)

    trials = run(search, measure)
    found = search.conclude(trials)
    assert max(trial.load for trial in trials) == 16
    assert found.found == 8
    assert found.ended_by == "generator"


def test_one_unlucky_point_does_not_decide_where_points_are_repeated() -> None:
    def unlucky() -> Callable[[float], Made]:
        left = [4.0]

        def measure(rate: float) -> Made:
            if rate in left:
                left.remove(rate)
                return mm1(rate, noise=100)
            return mm1(rate)

        return measure

    once, thrice = Search(start=1, precision=0.05), Search(start=1, precision=0.05, repeats=3)
    fooled, right = once.conclude(run(once, unlucky())), thrice.conclude(run(thrice, unlucky()))
    assert fooled.found is not None
    assert fooled.found < 4
    assert right.found is not None
    assert right.found == pytest.approx(HIGHEST_RATE, rel=0.06)


def test_repeats_bring_a_noisy_search_nearer() -> None:
    def errors(repeats: int) -> list[float]:
        found = []
        for seed in range(40):
            random, search = Random(seed), Search(start=1, precision=0.05, repeats=repeats)
            trials = run(search, lambda rate, random=random: mm1(rate, random.lognormvariate(0, 0.2)))  # type: ignore[misc]
            answer = search.conclude(trials).found
            assert answer is not None
            found.append(abs(answer / HIGHEST_RATE - 1))
        return found

    once, often = errors(1), errors(5)
    assert sum(often) < sum(once)
    assert max(often) < 0.2


def test_a_list_of_loads_is_measured_as_it_is() -> None:
    search = Search(start=1, loads=[10, 5, 16], repeats=1)
    trials = run(search, mm1)
    assert [trial.load for trial in trials] == [10, 5, 16]
    found = search.conclude(trials)
    assert (found.found, found.first_bad, found.ended_by) == (10, 16, "loads")


def test_an_unfinished_search_says_so() -> None:
    search = Search(start=1)
    assert search.conclude([]).ended_by == "unfinished"
    assert search.conclude([mm1(1)]).ended_by == "unfinished"
    assert search.conclude([mm1(1)]).found == 1


def test_the_knee_is_where_the_throughput_stops_to_grow() -> None:
    curve = [(users, closed(users).throughput) for users in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)]
    assert knee(curve) == 8
    random = Random(0)
    noisy = [(load, throughput * random.uniform(0.95, 1.05)) for load, throughput in curve]
    assert knee(noisy) == 8


@pytest.mark.parametrize(
    "curve",
    [
        [],
        [(1.0, 1.0), (2.0, 2.0)],
        [(1.0, 5.0), (2.0, 4.0), (4.0, 3.0)],
        [(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)],
    ],
)
def test_a_line_has_no_knee(curve: list[tuple[float, float]]) -> None:
    assert knee(curve) is None


def test_few_requests_that_came_by_chance_are_no_saturation() -> None:
    """Poisson arrivals for 18 s, from one request per second on, at a server with ample capacity."""
    search = Search(start=1, factor=2, highest=8, at_random=True)
    saturated = 0
    for seed in range(1000):
        chance = random.Random(seed)
        trials: list[Made] = []
        while (load := search.next_load(trials)) is not None:
            count, time = 0, chance.expovariate(load)
            while time < 18:
                count, time = count + 1, time + chance.expovariate(load)
            latency_ns = 1e8 * (1 + chance.random() / 20)
            trials.append(Made(load, "passed", 64 * count / 18, latency_ns, count))
        saturated += search.conclude(trials).ended_by == "saturation"
    assert saturated == 0  # without regard to chance: 13
    # A server that is full at 4 requests per second is still found.
    trials = [Made(n, "passed", 64 * min(n, 4), 1e8 * n, 18 * min(n, 4)) for n in (1, 2, 4, 8)]
    assert search.conclude(trials).saturated_at == 8


def test_few_requests_of_a_closed_loop_do_saturate() -> None:
    """Users send when they have their answer: no chance is in how many requests come."""

    def measure(users: float) -> Made:
        return replace(closed(users, slots=4), requests=30)

    search = SweepConfig(over="concurrency", start=1, max_e2e_p95="1h").search()
    found = search.conclude(run(search, measure))
    assert (found.ended_by, found.saturated_at) == ("saturation", 8)
    assert SweepConfig(over="rate", max_e2e_p95="1h").search().at_random
