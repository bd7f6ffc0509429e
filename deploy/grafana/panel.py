"""What a panel of the dashboard is, and the PromQL that several of them share."""

from __future__ import annotations

from dataclasses import dataclass

MODEL = 'instance=~"$instance",model=~"$model",version=~"$version"'
SLO = 'model=~"$model"'
HOST = 'instance=~"$instance"'
RATE = "[$__rate_interval]"
# Gauges of a version that was unloaded stay; Triton's own pending count goes, so it says what is loaded.
LOADED = "and on (instance, model, version) nv_inference_pending_request_count"


@dataclass(frozen=True)
class Query:
    """One PromQL expression and the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel; ``unit`` is a Grafana unit id, ``maximum`` fixes the top of the axis."""

    title: str
    queries: tuple[Query, ...]
    text: str
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    maximum: float | None = None
    stacked: bool = False


def stat(title: str, queries: tuple[Query, ...], text: str, unit: str = "short") -> Panel:
    """Return a small panel with one number."""
    return Panel(title, queries, text, unit, kind="stat", width=4, height=4)


def quantiles(metric: str) -> tuple[Query, ...]:
    """Return p50, p95 and p99 of a histogram over all that is selected."""
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{MODEL}}}{RATE})))", f"p{q * 100:g}"
        )
        for q in (0.5, 0.95, 0.99)
    )


def per_second(metric: str, by: str, *, where: str = MODEL) -> str:
    """Return the rate of a counter, summed by some labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}{RATE}))"


def mean(total: str, count: str, by: str = "instance, model") -> str:
    """Return one counter's rate by another's; nothing while the second stands still."""
    return f"{per_second(total, by)} / ({per_second(count, by)} > 0)"


def loaded(gauge: str) -> str:
    """Return a gauge of the versions that are loaded now, by instance and model."""
    return f"sum by (instance, model) ({gauge}{{{MODEL}}} {LOADED})"
