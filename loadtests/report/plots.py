"""The charts of the report as PNG, for a slide or a wiki; drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loadtests.durations import format_duration
from loadtests.metrics.distribution import Distribution

__all__ = ["PLOTS", "write_plots"]

PLOTS = ("latency.png", "timeline.png", "server.png")
"""What is written; the last one only where the server's metrics were read."""

_BLUE, _ORANGE, _TEAL, _GREY = "#2563c9", "#c2700c", "#0b7f74", "#8b94a3"
_LATENCIES = {
    "ttft": "Time to first token",
    "itl": "Inter-token latency",
    "tpot": "Time per output token",
    "e2e": "End-to-end latency",
}
_LOG_FROM = 12  # p99 so many times p5


def write_plots(
    directory: Path, results: Mapping[str, Any], distributions: Mapping[str, Distribution]
) -> list[Path]:
    """Write the plots into ``directory``, which is made, and return their paths.

    Args:
        directory: where to.
        results: the content of ``results.json``.
        distributions: tag of a request metric -> its samples.
    """
    directory.mkdir(parents=True, exist_ok=True)
    figures = [_latency(distributions), _timeline(results)]
    if results["server_metrics"]["series"]:
        figures.append(_server(results))
    paths = [directory / name for name in PLOTS[: len(figures)]]
    for figure, path in zip(figures, paths, strict=True):
        FigureCanvasAgg(figure)
        figure.suptitle(f"{results['config']['model']}: {results['verdict']['outcome']}", x=0.01, ha="left")
        figure.savefig(path, format="png")
    return paths


def _grid(rows: int) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(11, 3.3 * rows + 0.4), dpi=110, layout="constrained")
    axes = list(figure.subplots(rows, 2).flat)
    for one in axes:
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _latency(distributions: Mapping[str, Distribution]) -> Figure:
    figure, axes = _grid(2)
    for one, (tag, title) in zip(axes, _LATENCIES.items(), strict=True):
        one.set_title(title, loc="left")
        found = distributions[tag]
        if not found.count:
            one.text(0.5, 0.5, "not measured", ha="center", transform=one.transAxes)
            continue
        pairs = list(found.buckets())
        values = np.array([value for value, _ in pairs]) / 1e6
        shares = 100 * np.cumsum([count for _, count in pairs]) / found.count
        one.plot(values, shares, color=_BLUE, drawstyle="steps-post")
        p5, p50, p95, p99 = found.percentiles((5, 50, 95, 99))
        for percent, value in ((50, p50), (95, p95)):
            one.axvline(value / 1e6, color=_GREY, linestyle=":", linewidth=1)
            far = value > 0.6 * found.max  # a text to its right would leave the plot
            text, place = f"p{percent} {format_duration(value)}", (-6 if far else 6, -12)
            one.annotate(text, (value / 1e6, percent), place, textcoords="offset points", fontsize=8,
                         ha="right" if far else "left")  # fmt: skip
        if p99 > _LOG_FROM * max(p5, 1):
            one.set_xscale("log")
        one.set_xlabel("ms")
        one.set_ylabel("% below")
    return figure


def _timeline(results: Mapping[str, Any]) -> Figure:
    figure, axes = _grid(2)
    series, pieces = results["series"], results["latency_series"]
    times = [piece["start_s"] + pieces["seconds"] / 2 for piece in pieces["pieces"]]
    for one, tag in zip(axes, ("ttft", "itl"), strict=False):
        one.set_title(_LATENCIES[tag], loc="left")
        for name, colour in (("p95", _ORANGE), ("p50", _BLUE)):
            found = [piece[tag] for piece in pieces["pieces"]]
            values = [np.nan if piece is None else piece[name] / 1e6 for piece in found]
            one.plot(times, values, color=colour, label=name)
        one.set_ylabel("ms")
        one.legend(frameon=False)
    middles = [bucket["start_s"] + bucket["seconds"] / 2 for bucket in series]
    axes[2].set_title("Output tokens per second", loc="left")
    axes[2].plot(middles, [bucket["output_tokens"] / bucket["seconds"] for bucket in series], color=_BLUE)
    axes[3].set_title("Concurrency", loc="left")
    axes[3].plot(middles, [bucket["in_flight"] for bucket in series], color=_BLUE, label="in flight")
    axes[3].plot(middles, [bucket["users"] for bucket in series], color=_ORANGE, ls="--", label="users")
    axes[3].legend(frameon=False)
    return _over_time(figure, axes, results)


def _server(results: Mapping[str, Any]) -> Figure:
    figure, axes = _grid(2)
    series = results["server_metrics"]["series"]
    times = [moment["time_s"] for moment in series]
    for one, title, factor, tracks in (
        (axes[0], "Batch size", 1.0, (("decoded together", "batch_size"),
                                      ("from Triton's batcher", "requests_per_batch"))),
        (axes[1], "Requests in the server", 1.0, (("in a slot", "running"), ("wait for a slot", "waiting"),
                                                  ("in Triton's queue", "queued"))),
        (axes[2], "Wait in Triton's queue, ms", 1e-6, (("mean", "queue_ns_per_request"),)),
        (axes[3], "Busy, %", 100.0, (("CPU", "cpu_share"), ("GPU", "gpu_share"), ("KV cache", "kv_share"))),
    ):  # fmt: skip
        one.set_title(title, loc="left")
        for (name, key), colour in zip(tracks, (_BLUE, _ORANGE, _TEAL), strict=False):
            values = [np.nan if moment[key] is None else factor * moment[key] for moment in series]
            if not np.isnan(values).all():
                one.plot(times, values, color=colour, label=name)
        if one.lines:
            one.legend(frameon=False)
    return _over_time(figure, axes, results)


def _over_time(figure: Figure, axes: list[Any], results: Mapping[str, Any]) -> Figure:
    for one in axes:
        one.set_ylim(bottom=0)
        one.set_xlim(left=0)
        one.set_xlabel("seconds")
        if results["window"]["start_ns"]:
            one.axvspan(0, results["window"]["start_ns"] / 1e9, color=_GREY, alpha=0.12, linewidth=0)
    return figure
