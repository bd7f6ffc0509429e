"""Which charts the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from loadtests.metrics.distribution import Distribution
from loadtests.report.distribution import distribution_chart
from loadtests.report.timeline import Track, timeline_chart

__all__ = ["Chart", "charts"]

_DISTRIBUTIONS = {
    "ttft": ("Time to first token", "share of requests below"),
    "itl": ("Inter-token latency", "share of gaps below"),
    "e2e": ("End-to-end latency", "share of requests below"),
}


@dataclass(frozen=True)
class Chart:
    """A chart with its heading; ``legend`` holds (name, colour class) where there are two lines."""

    title: str
    caption: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()


def charts(results: Mapping[str, Any], distributions: Mapping[str, Distribution]) -> list[Chart]:
    """Return the charts in the order of the page; a metric without samples has none."""
    found = [
        Chart(title, caption, Markup(distribution_chart(distributions[tag], title)))
        for tag, (title, caption) in _DISTRIBUTIONS.items()
        if distributions[tag].count
    ]
    return [*found, _tokens(results), _requests(results), _users(results)]


def _middles(results: Mapping[str, Any]) -> list[float]:
    return [bucket["start_s"] + bucket["seconds"] / 2 for bucket in results["series"]]


def _rates(results: Mapping[str, Any], key: str) -> list[float]:
    return [bucket[key] / bucket["seconds"] for bucket in results["series"]]


def _draw(results: Mapping[str, Any], title: str, tracks: Sequence[Track]) -> Markup:
    return Markup(timeline_chart(_middles(results), tracks, title, results["window"]["start_ns"] / 1e9))


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
    tracks = [
        Track("in flight", [bucket["in_flight"] for bucket in results["series"]], "one"),
        # Dashed and on top: in a closed loop the two often lie on each other.
        Track("users", [bucket["users"] for bucket in results["series"]], "two"),
    ]
    legend = (("requests in flight", "one"), ("users running", "two"))
    return Chart("Concurrency", "over time", _draw(results, "Concurrency", tracks), legend)
