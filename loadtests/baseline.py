"""The run to compare with: its results, its requests, and what changed since."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals.schedule import make_schedule
from loadtests.bootstrap import Draws, resampled_mean, resampled_percentiles
from loadtests.comparison import Comparison
from loadtests.config import LoadTestConfig
from loadtests.config_json import config_to_json
from loadtests.errors import BaselineError
from loadtests.measurement import Measurement
from loadtests.metrics.catalog import request_metrics
from loadtests.metrics.metric import Window
from loadtests.output import RECORDS_NAME
from loadtests.record import Record, read_records
from loadtests.target import parse_targets
from loadtests.workloads.settings import WorkloadSettings

__all__ = ["Baseline", "compare", "read_baseline"]

_METRICS = ("ttft", "itl", "e2e")
_PERCENTS = (50, 95)
_FEWEST_REQUESTS = 30
_SAME_TIME_NS = 100_000_000  # the clocks of several workers are lined up by their messages
# A load that differs in one of these cannot be compared. `users` only bounds an open loop, in which nobody is
# spawned, and the times are part of a load that changes over the run.
_SAME = (
    "model", "protocol", "arrivals", "rate", "burstiness", "trace_speed", "users", "spawn_rate", "duration",
    "warmup", "cooldown",
    *(field.name for field in fields(WorkloadSettings) if field.name not in ("prompts", "tokenizer", "seed")),
)  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """A run that was stored."""

    path: Path
    """Its output directory."""
    results: dict[str, Any]
    """Its ``results.json``."""

    @property
    def window(self) -> Window:
        """The part of it that was measured."""
        found = self.results["window"]
        cut_off = self.results["requests"].get("cooldown", 0) > 0
        return Window(found["start_ns"], found["end_ns"], cooldown=cut_off)


def read_baseline(config: LoadTestConfig) -> Baseline | None:
    """Return the baseline that ``config`` names, or None where it names none.

    Raises:
        BaselineError: it is no output of a load test, is an invalid run, too short, or another load.
    """
    path = config.baseline
    if path is None:
        return None
    try:
        results: dict[str, Any] = json.loads((path / "results.json").read_text(encoding="utf-8"))
        known = {**config_to_json(LoadTestConfig()), **results["config"]}
        ok = int(results["requests"]["ok"])
        valid = not results["verdict"].get("invalid")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaselineError(
            f"baseline: {path} is no output of a load test ({error}); give the directory with results.json"
        ) from error
    if not (path / RECORDS_NAME).is_file():
        raise BaselineError(f"baseline: {path} has no {RECORDS_NAME}, from which chance is estimated")
    if not valid:
        raise BaselineError(f"baseline: {path} is an invalid run; make another one")
    if ok < _FEWEST_REQUESTS:
        raise BaselineError(
            f"baseline: {path} has {ok} answered requests; {_FEWEST_REQUESTS} are needed to tell a change "
            "from chance"
        )
    own = config_to_json(config)
    own["targets"], known["targets"] = (len(parse_targets(str(values["url"]))) for values in (own, known))
    names = [*(name for name in _SAME if name not in _without_meaning(config)), "targets"]
    different = [f"{name}: {known[name]}, not {own[name]}" for name in names if known[name] != own[name]]
    if not different and config.arrivals == "trace" and not _same_arrivals(config, path / RECORDS_NAME):
        different = [f"trace: other arrivals than those of {config.trace}"]
    if different:
        raise BaselineError(
            f"baseline: {path} was another load ({'; '.join(different)}); compare runs of the same load"
        )
    return Baseline(path, results)


def _without_meaning(config: LoadTestConfig) -> set[str]:
    """Return the names of what does not change the load, or what can be compared of it."""
    changing = config.arrivals == "trace" or any(sign in str(config.rate) for sign in (",", ".."))
    times = set() if changing else {"duration", "warmup", "cooldown"}
    return times if config.arrivals == "closed" else {"users", "spawn_rate", *times}


def _same_arrivals(config: LoadTestConfig, records: Path) -> bool:
    """Return whether the requests of an earlier run were meant for the times that a trace says now."""
    schedule = make_schedule(config)
    assert schedule is not None  # of a trace
    times = schedule.times_ns
    return all(
        record.sequence < len(times) and abs(record.intended_ns - times[record.sequence]) <= _SAME_TIME_NS
        for record in read_records(records)
        if record.intended_ns is not None and record.turn == 0
    )


def compare(
    baseline: Baseline, records: Iterable[Record], measurement: Measurement, limit: float
) -> list[Comparison]:
    """Return the change of every number that both runs have; nothing for a run of too few requests.

    Args:
        baseline: the run to compare with.
        records: the requests of this run.
        measurement: the numbers of this run.
        limit: how much worse is still good.
    """
    if measurement.counts["ok"] < _FEWEST_REQUESTS:
        return []
    before = _Samples(read_records(baseline.path / RECORDS_NAME), baseline.window)
    now = _Samples(records, measurement.window)
    found: list[Comparison] = []
    for tag in _METRICS:
        old, new = baseline.results["metrics"].get(tag), measurement.summaries[tag]
        if old is None or new is None:
            continue
        draws = zip(before.percentiles(tag, seed=1), now.percentiles(tag, seed=2), strict=True)
        for percent, (old_draws, new_draws) in zip(_PERCENTS, draws, strict=True):
            name = f"p{percent}"
            values = old[name], getattr(new, name)
            found.append(_changed(f"{tag} {name}", "ns", *values, old_draws, new_draws, limit))
    old_rate = baseline.results["totals"]["output_tokens_per_second"]["value"]
    new_rate = measurement.totals["output_tokens_per_second"]
    if old_rate and new_rate:
        old_seconds = _tokens_per_second(baseline.results["series"], baseline.window)
        new_seconds = _tokens_per_second(
            [bucket.as_dict() for bucket in measurement.series], measurement.window
        )
        if len(old_seconds) > 1 and len(new_seconds) > 1:
            rates = resampled_mean(old_seconds, 1), resampled_mean(new_seconds, 2)
            found.append(_changed("output tokens/s", "tokens/s", old_rate, new_rate, *rates, limit))
    return found


class _Samples:
    """The samples of the compared metrics with the requests that they belong to."""

    def __init__(self, records: Iterable[Record], window: Window) -> None:
        metrics = {metric.tag: metric for metric in request_metrics() if metric.tag in _METRICS}
        asked: list[int] = []
        values: dict[str, list[int]] = {tag: [] for tag in metrics}
        owners: dict[str, list[int]] = {tag: [] for tag in metrics}
        for record in records:
            if record.outcome != "ok" or window.place(record) != "measured":
                continue
            for tag, metric in metrics.items():
                samples = metric.samples(record)
                values[tag] += samples
                owners[tag] += [len(asked)] * len(samples)
            asked.append(record.asked_ns)
        place = np.empty(len(asked), dtype=np.int64)
        place[np.argsort(np.asarray(asked), kind="stable")] = np.arange(len(asked))
        self._requests = len(asked)
        self._values = {tag: np.asarray(found, dtype=np.int64) for tag, found in values.items()}
        self._owners = {tag: place[np.asarray(found, dtype=np.int64)] for tag, found in owners.items()}

    def percentiles(self, tag: str, seed: int) -> list[Draws]:
        return resampled_percentiles(self._values[tag], self._owners[tag], self._requests, _PERCENTS, seed)


def _changed(
    name: str,
    unit: Literal["ns", "tokens/s"],
    old: float,
    new: float,
    old_draws: Draws,
    new_draws: Draws,
    limit: float,
) -> Comparison:
    # Both runs are left to chance: every draw of one is held against a draw of the other.
    size = min(len(old_draws), len(new_draws))
    changes = new_draws[:size] / old_draws[:size] - 1
    low, high = (float(bound) for bound in np.percentile(changes, (2.5, 97.5)))
    return Comparison(name, unit, old, new, low, high, limit)


def _tokens_per_second(series: list[dict[str, float]], window: Window) -> NDArray[np.float64]:
    """Return tokens/s of every second that lies in the window as a whole."""
    whole = [
        bucket["output_tokens"] / bucket["seconds"]
        for bucket in series
        if window.start_ns <= 1e9 * bucket["start_s"]
        and 1e9 * (bucket["start_s"] + bucket["seconds"]) <= window.end_ns + 1
    ]
    return np.asarray(whole, dtype=np.float64)
