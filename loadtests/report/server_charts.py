"""The server's side of the report: where a first token's time goes, batches, queues, load of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from loadtests.durations import format_duration
from loadtests.report.bars import column_chart, share_chart
from loadtests.report.charts import Chart, run_span, short_duration_ns
from loadtests.report.scale import short_bytes, trim
from loadtests.report.timeline import Track, timeline_chart

__all__ = ["first_token_parts", "requests_in_server", "server_charts", "server_rows"]

_MISSING = "–"


def server_charts(results: Mapping[str, Any]) -> list[Chart]:
    """Return the charts of what the server publishes; none where it was not read."""
    found = results["server_metrics"]
    if found["window"] is None:
        return []
    charts = [_first_token(results), _batches(found["window"]), _from_batcher(found["window"])]
    charts += [
        _timeline(results, "Batches", "mean per reading", (
            ("decoded together", "batch_size", "one"),
            ("from Triton's batcher", "requests_per_batch", "two"),
        )),
        _timeline(results, "Wait in Triton's queue", "mean of the requests that ended", (
            ("queue", "queue_ns_per_request", "one"),
        ), label=short_duration_ns, tick_unit=1e6),
        _timeline(results, "Busy", "share of the whole", (
            ("CPU", "cpu_share", "one"),
            ("GPU", "gpu_share", "two"),
            ("KV cache", "kv_share", "three"),
        ), label=lambda value: f"{trim(round(100 * value, 1))} %", top=1.0),
        _timeline(results, "Memory in use", "of the host", (
            ("host", "memory_bytes", "one"),
            ("GPU", "gpu_memory_bytes", "two"),
        ), label=short_bytes, tick_unit=2**30),
    ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def requests_in_server(results: Mapping[str, Any]) -> Chart | None:
    """Return the chart that stands beside the client's concurrency."""
    return _timeline(results, "Requests in the server", "", (
        ("in a slot", "running", "one"),
        ("waiting", "waiting", "two"),
        ("in Triton's queue", "queued", "three"),
    ))  # fmt: skip


def first_token_parts(results: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return (name, nanoseconds) of the parts that the mean time to first token is made of.

    Means add up, percentiles do not. What remains after the server's parts is the network and the client.
    Empty where a part is unknown, or where the server's own parts are longer than the whole (other requests
    than these are among them).
    """
    window, ttft = results["server_metrics"]["window"], results["metrics"]["ttft"]
    if window is None or ttft is None or not window["histograms"]["ttft"]:
        return []
    queue, slot = window["queue_ns_per_request"], window["histograms"]["queue"]
    if queue is None or slot is None:
        return []
    slot_ns, first_ns = 1e9 * slot["mean"], 1e9 * window["histograms"]["ttft"]["mean"]
    lateness = results["metrics"]["lateness"]
    parts = [
        ("sent late by the load generator", 0.0 if lateness is None else lateness["mean"]),
        ("Triton's queue", queue),
        ("wait for a slot of the engine", slot_ns),
        ("prompt and first token computed", max(first_ns - slot_ns, 0.0)),
    ]
    rest = ttft["mean"] - sum(size for _, size in parts)
    if rest < -0.05 * ttft["mean"]:
        return []
    return [part for part in [*parts, ("network and client", max(rest, 0.0))] if part[1] > 0]


def server_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the server's numbers of the window as (name, value)."""
    window = results["server_metrics"]["window"]
    if window is None:
        return []
    gauges, batch = window["gauges"], window["histograms"]["batch_size"]

    def both(tag: str, show: Callable[[float], str]) -> str:
        found = gauges[tag]
        return _MISSING if found is None else f"mean {show(found['mean'])}, most {show(found['max'])}"

    def number(value: float | None, show: Callable[[float], str] = lambda value: f"{value:,.0f}") -> str:
        return _MISSING if value is None else show(value)

    def share(value: float) -> str:
        return f"{100 * value:.0f} %"

    def some(value: float) -> str:
        return f"{value:,.1f}".removesuffix(".0")

    slots = None if gauges["slots"] is None else gauges["slots"]["max"]
    failed = ", ".join(f"{count:,.0f} {reason}" for reason, count in window["failed_requests"].items())
    rows = [
        ("Requests answered", number(window["requests"])),
        ("Requests failed", failed or "none"),
        ("Requests per batch of Triton", number(window["requests_per_batch"], lambda value: f"{value:.2f}")),
        ("Wait in Triton's queue", number(window["queue_ns_per_request"], format_duration)),
        ("Requests decoded together", number(batch and batch["mean"], lambda value: f"mean {value:.2f}")),
        ("Output tokens/s", number(window["output_tokens_per_second"], some)),
        ("Time in prefill, in decode", " and ".join(
            number(window[f"{kind}_share"], share) for kind in ("prefill", "decode")
        )),
        ("Requests in a slot", f"{both('running', some)}, of {number(slots)} slots"),
        ("Requests that wait for a slot", both("waiting", some)),
        ("Requests in Triton's queue", both("queued", some)),
        ("KV cache", both("kv_share", lambda value: f"{100 * value:.1f} %")),
        ("Response cache hits", number(window["cache_hit_share"], share)),
        ("CPU of the host", both("cpu_share", share)),
        ("Memory of the host", both("memory_bytes", short_bytes)),
        ("GPU", both("gpu_share", share)),
        ("Memory of the GPU", both("gpu_memory_bytes", short_bytes)),
    ]  # fmt: skip
    return [row for row in rows if not row[1].startswith(_MISSING)]


def _first_token(results: Mapping[str, Any]) -> Chart | None:
    parts = first_token_parts(results)
    if not parts:
        return None
    title = "Where the time to first token goes"
    total = format_duration(results["metrics"]["ttft"]["mean"])
    drawn = share_chart([(name, size, format_duration(size)) for name, size in parts], title)
    return Chart(title, f"means, which add up to {total}", Markup(drawn))


def _batches(window: Mapping[str, Any]) -> Chart | None:
    found = window["histograms"]["batch_size"]
    if found is None:
        return None
    edges = [int(edge) for edge in found["edges"]]
    lows = [1, *(edge + 1 for edge in edges)]
    labels = [
        str(high) if low == high else f"{low}–{high}"
        for low, high in zip(lows[:-1], edges, strict=True)
    ] + [f"over {edges[-1]}"]  # fmt: skip
    last = max((place for place, count in enumerate(found["counts"]) if count > 0), default=0)
    values = [count / found["count"] for count in found["counts"][: last + 1]]
    title = "Batch sizes of the engine"
    drawn = column_chart(labels[: last + 1], values, title, "requests together", "decode steps")
    return Chart(title, f"share of decode steps · mean {found['mean']:.1f}", Markup(drawn))


def _from_batcher(window: Mapping[str, Any]) -> Chart | None:
    """Return the chart of what Triton's dynamic batcher handed over together; sizes in powers of two."""
    found = window.get("batch_sizes")
    if found is None:
        return None
    counts = [0.0] * ((max(found["sizes"]) - 1).bit_length() + 1)
    for size, count in zip(found["sizes"], found["counts"], strict=True):
        counts[(size - 1).bit_length()] += count
    labels = [
        str(2**place) if place < 2 else f"{2 ** (place - 1) + 1}–{2**place}" for place in range(len(counts))
    ]
    total = sum(counts)
    handed = sum(size * count for size, count in zip(found["sizes"], found["counts"], strict=True))
    title = "Batches of Triton's batcher"
    drawn = column_chart(labels, [count / total for count in counts], title, "requests together", "batches")
    return Chart(title, f"share of the batches · mean {handed / total:.1f}", Markup(drawn))


def _timeline(
    results: Mapping[str, Any],
    title: str,
    caption: str,
    tracks: Sequence[tuple[str, str, str]],
    **options: Any,
) -> Chart | None:
    """Return the chart of those tracks (name, key, colour) that the server publishes."""
    span = run_span(results)
    series = [moment for moment in results["server_metrics"]["series"] if moment["time_s"] <= span["end_s"]]
    shown = [
        Track(name, [moment[key] for moment in series], colour)
        for name, key, colour in tracks
        if any(moment[key] is not None for moment in series)
    ]
    if not shown:
        return None
    times = [moment["time_s"] for moment in series]
    legend = tuple((track.name, track.css_class) for track in shown) if len(tracks) > 1 else ()
    return Chart(
        title, caption, Markup(timeline_chart(times, shown, title, **span, **options)), legend
    )  # fmt: skip
