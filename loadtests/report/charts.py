"""Which charts the report shows: latencies, the run over time, the change since the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from loadtests.comparison import Comparison
from loadtests.metrics.distribution import Distribution
from loadtests.report.bars import interval_chart
from loadtests.report.distribution import distribution_chart
from loadtests.report.scale import short_duration
from loadtests.report.timeline import Track, timeline_chart

__all__ = ["Chart", "change_chart", "latency_charts", "load_charts", "run_span"]

_DISTRIBUTIONS = {
    "ttft": ("Time to first token", "share of requests below"),
    "itl": ("Inter-token latency", "share of gaps below"),
    "tpot": ("Time per output token", "share of requests below, each one's mean"),
    "e2e": ("End-to-end latency", "share of requests below"),
}


@dataclass(frozen=True)
class Chart:
    """A chart with its heading; ``legend`` holds (name, colour class) where there are two lines."""

    title: str
    caption: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()


def latency_charts(
    results: Mapping[str, Any],
    distributions: Mapping[str, Distribution],
    baseline: Mapping[str, Any] | None = None,
) -> list[Chart]:
    """Return the distributions; a metric without samples has none.

    Args:
        results: the content of ``results.json``.
        distributions: tag of a request metric -> its samples.
        baseline: ``results.json`` of the run to compare with.
    """
    limits: dict[str, list[tuple[str, int, bool]]] = {tag: [] for tag in _DISTRIBUTIONS}
    for check in results["verdict"]["checks"]:
        tag, _, statistic = check["name"].partition(" ")
        if tag in limits and statistic:
            limits[tag].append((statistic, check["limit"], check["passed"]))
    found = []
    for tag, (title, caption) in _DISTRIBUTIONS.items():
        if not distributions[tag].count:
            continue
        before = None
        if baseline is not None and (summary := baseline["metrics"].get(tag)):
            before = Distribution.stored(summary)
        drawn = distribution_chart(distributions[tag], title, baseline=before, limits=limits[tag])
        legend = (("this run", "one"), ("baseline", "base")) if before is not None else ()
        found.append(Chart(title, caption, Markup(drawn), legend))
    return found


def load_charts(results: Mapping[str, Any]) -> list[Chart]:
    """Return what the client saw over the seconds of the run."""
    return [*_latencies(results), _tokens(results), _requests(results), _users(results)]


def change_chart(results: Mapping[str, Any]) -> Chart | None:
    """Return the changes since the baseline, or None where there is nothing to compare with."""
    rows = [
        Comparison(**{name: value for name, value in row.items() if name not in ("passed", "change")})
        for row in results["verdict"]["comparisons"]
    ]
    if not rows:
        return None
    return Chart(
        "Change since the baseline",
        "with the interval in which chance alone puts it (95 %)",
        Markup(interval_chart(rows, "Change since the baseline")),
    )


def run_span(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the axis of a timeline ends and which parts of it were not measured."""
    window, series = results["window"], results["series"]
    end_s = series[-1]["start_s"] + series[-1]["seconds"]
    measured_s = window["end_ns"] / 1e9
    return {
        "warmup_s": window["start_ns"] / 1e9,
        "end_s": end_s,
        "cooldown_s": measured_s if end_s - measured_s > 0.5 else None,
    }


def _middles(results: Mapping[str, Any]) -> list[float]:
    return [bucket["start_s"] + bucket["seconds"] / 2 for bucket in results["series"]]


def _rates(results: Mapping[str, Any], key: str) -> list[float]:
    return [bucket[key] / bucket["seconds"] for bucket in results["series"]]


def _draw(results: Mapping[str, Any], title: str, tracks: Sequence[Track]) -> Markup:
    return Markup(timeline_chart(_middles(results), tracks, title, **run_span(results)))


def _latencies(results: Mapping[str, Any]) -> list[Chart]:
    series = results["latency_series"]
    length = series["seconds"]
    times = [piece["start_s"] + length / 2 for piece in series["pieces"]]
    found = []
    for tag, caption in (("ttft", "by the moment of asking"), ("itl", "between tokens")):
        pieces = [piece[tag] for piece in series["pieces"]]
        if not any(pieces):
            continue
        title = _DISTRIBUTIONS[tag][0]
        names = (("p95", "two"), ("p50", "one"))
        tracks = [
            Track(name, [None if piece is None else piece[name] for piece in pieces], colour)
            for name, colour in names
        ]
        drawn = timeline_chart(
            times, tracks, title, **run_span(results), label=short_duration_ns, tick_unit=1e6
        )
        every = "second" if length == 1 else f"{length:g} s"
        found.append(Chart(title, f"{caption}, per {every}", Markup(drawn), names[::-1]))
    return found


def short_duration_ns(value: float) -> str:
    """Return a latency with at most three digits."""
    digits = len(str(int(value)))
    return short_duration(round(value, 3 - digits)) if value >= 1 else "0"


def _tokens(results: Mapping[str, Any]) -> Chart:
    track = Track("tokens/s", _rates(results, "output_tokens"), "one", area=True)
    return Chart("Output tokens", "per second", _draw(results, "Output tokens", [track]))


def _requests(results: Mapping[str, Any]) -> Chart:
    tracks = [Track("answered", _rates(results, "requests"), "one", area=True)]
    legend: tuple[tuple[str, str], ...] = ()
    if any(bucket["failures"] for bucket in results["series"]):
        tracks.append(Track("failed", _rates(results, "failures"), "bad"))
        legend = (("answered", "one"), ("failed", "bad"))
    return Chart("Requests", "ended per second", _draw(results, "Requests", tracks), legend)


def _users(results: Mapping[str, Any]) -> Chart:
    tracks = [Track("in flight", [bucket["in_flight"] for bucket in results["series"]], "one", area=True)]
    legend: tuple[tuple[str, str], ...] = ()
    # In an open loop users only bound what is in flight, and are many more.
    if results["config"]["arrivals"] == "closed":
        # Dashed and on top: the two often lie on each other.
        tracks.append(Track("users", [bucket["users"] for bucket in results["series"]], "two"))
        legend = (("requests in flight", "one"), ("users running", "two"))
    caption = "requests in flight" if not legend else "over time"
    return Chart("Concurrency", caption, _draw(results, "Concurrency", tracks), legend)
