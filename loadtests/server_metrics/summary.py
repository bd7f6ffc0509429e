"""``server_metrics`` of results.json: what the server did in the measured window, and a series for charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtests.metrics.metric import Window
from loadtests.server_metrics.batch_sizes import batch_sizes
from loadtests.server_metrics.engines import engine_facts
from loadtests.server_metrics.gauges import GAUGES, gauges
from loadtests.server_metrics.growth import Growth, increase, mean, since
from loadtests.server_metrics.snapshot import Key, Snapshot

__all__ = ["NOT_READ", "server_metrics"]

NOT_READ: dict[str, Any] = {
    "urls": [], "interval_s": None, "scrapes": 0, "failed_scrapes": 0, "resets_s": [], "notes": [],
    "engines": [], "window": None, "whole_run": None, "series": [],
}  # fmt: skip
"""What stands there when nothing was read."""

_HISTOGRAMS = {
    "batch_size": ("trimaran_engine_batch_size", "requests"),
    "queue": ("trimaran_queue_seconds", "s"),
    "ttft": ("trimaran_time_to_first_token_seconds", "s"),
    "itl": ("trimaran_inter_token_latency_seconds", "s"),
    "e2e": ("trimaran_request_duration_seconds", "s"),
}


def server_metrics(
    snapshots: Iterable[Snapshot],
    *,
    origin_ns: int,
    window: Window,
    urls: Sequence[str],
    interval_s: float,
    answered: int,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what the server says of the run.

    Args:
        snapshots: in order, from before the load to after it.
        origin_ns: when the load began, on the clock of the snapshots.
        window: the measured part of the load.
        urls: where they were read.
        interval_s: seconds between two.
        answered: requests that the load generator saw answered, in the whole run.
        notes: what is known already.
    """
    growth = Growth((origin_ns + window.start_ns, origin_ns + window.end_ns))
    series: list[dict[str, float | None]] = []
    seen: dict[str, list[float]] = {tag: [] for tag in GAUGES}
    scrapes, failures, engines = 0, [], []
    for snapshot in snapshots:
        if snapshot.failure is not None:
            failures.append(snapshot.failure)
            continue
        scrapes += 1
        time_ns, before_ns = snapshot.time_ns - origin_ns, growth.last_ns - origin_ns
        first = growth.first_ns is None
        grown, now = growth.take(snapshot), gauges(snapshot.values)
        # One that was loaded again in the midst of the run is another one, and both answered.
        engines += [facts for facts in engine_facts(snapshot.values) if facts not in engines]
        if window.holds(time_ns):
            for tag, value in now.items():
                if value is not None:
                    seen[tag].append(value)
        if time_ns >= 0 and not first:
            series.append(_moment(time_ns, (time_ns - before_ns) / 1e9, now, grown))
    growth.finish()
    found: dict[str, Any] = {
        **NOT_READ,
        "urls": list(urls),
        "interval_s": interval_s if urls else None,
        "scrapes": scrapes,
        "failed_scrapes": len(failures),
        "resets_s": [round((when - origin_ns) / 1e9, 3) for when in growth.resets],
        "notes": list(notes),
        "engines": engines,
    }
    if scrapes < 2:
        return found if not urls else {**found, "notes": [*notes, _nothing(failures)]}
    in_window = since(growth.at_edges[1], growth.at_edges[0])
    run = {"requests": increase(growth.total, "nv_inference_request_success"), "answered": answered}
    return {
        **found,
        "notes": [*notes, *_remarks(growth, origin_ns, window, failures, run)],
        "window": {
            **_counted(in_window, window.seconds),
            "gauges": {
                tag: {"mean": sum(values) / len(values), "max": max(values)} if values else None
                for tag, values in seen.items()
            },
            "histograms": {
                tag: _histogram(in_window, name, unit) for tag, (name, unit) in _HISTOGRAMS.items()
            },
        },
        "whole_run": {**run, "output_tokens": increase(growth.total, "trimaran_completion_tokens_total")},
        "series": series,
    }


def _counted(growth: Mapping[Key, float], seconds: float) -> dict[str, Any]:
    requests = increase(growth, "nv_inference_request_success")
    tokens = increase(growth, "trimaran_completion_tokens_total")
    hits, misses = (increase(growth, f"nv_cache_num_{kind}_per_model") for kind in ("hits", "misses"))
    return {
        "requests": requests,
        "failed_requests": _by_label(growth, "nv_inference_request_failure", "reason"),
        "outcomes": _by_label(growth, "trimaran_requests_total", "outcome"),
        "inferences": increase(growth, "nv_inference_count"),
        "batches": increase(growth, "nv_inference_exec_count"),
        "requests_per_batch": mean(
            increase(growth, "nv_inference_count"), increase(growth, "nv_inference_exec_count")
        ),
        "batch_sizes": batch_sizes(growth),
        "queue_ns_per_request": mean(increase(growth, "nv_inference_queue_duration_us"), requests, 1e3),
        "prompt_tokens": increase(growth, "trimaran_prompt_tokens_total"),
        "output_tokens": tokens,
        "output_tokens_per_second": mean(tokens, seconds),
        "decode_steps": increase(growth, "trimaran_decode_steps_total"),
        "prefill_share": mean(increase(growth, "trimaran_prefill_seconds_total"), seconds),
        "decode_share": mean(increase(growth, "trimaran_decode_seconds_total"), seconds),
        "cache_hit_share": mean(hits, (hits or 0) + (misses or 0)),
    }


def _by_label(growth: Mapping[Key, float], name: str, label: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in growth.items():
        if key.name == name and value:
            word = key.label(label) or "unknown"
            found[word] = found.get(word, 0.0) + value
    return found


def _histogram(growth: Mapping[Key, float], name: str, unit: str) -> dict[str, Any] | None:
    """Return the counts between the edges, the last one above all of them; None without an observation."""
    below: dict[float, float] = {}
    for key, value in growth.items():
        if key.name == f"{name}_bucket" and (edge := key.label("le")) is not None:
            below[float(edge)] = below.get(float(edge), 0.0) + value
    edges = sorted(below)
    count = round(increase(growth, f"{name}_count") or 0.0, 3)
    if not edges or not count:
        return None
    counts = [below[edge] - (below[edges[place - 1]] if place else 0.0) for place, edge in enumerate(edges)]
    return {
        "unit": unit,
        "edges": [edge for edge in edges if not math.isinf(edge)],
        "counts": [round(found, 3) for found in counts],
        "count": count,
        "mean": mean(increase(growth, f"{name}_sum"), count),
    }


def _moment(
    time_ns: int, seconds: float, now: Mapping[str, float | None], grown: Mapping[Key, float]
) -> dict[str, float | None]:
    steps = increase(grown, "trimaran_engine_batch_size_count")
    return {
        "time_s": round(time_ns / 1e9, 3),
        "seconds": round(seconds, 3),
        **now,
        "output_tokens_per_second": mean(increase(grown, "trimaran_completion_tokens_total"), seconds),
        "requests_per_batch": mean(
            increase(grown, "nv_inference_count"), increase(grown, "nv_inference_exec_count")
        ),
        "queue_ns_per_request": mean(
            increase(grown, "nv_inference_queue_duration_us"),
            increase(grown, "nv_inference_request_success"),
            1e3,
        ),
        "batch_size": mean(increase(grown, "trimaran_engine_batch_size_sum"), steps),
    }


def _remarks(
    growth: Growth, origin_ns: int, window: Window, failures: Sequence[str], run: Mapping[str, float | None]
) -> list[str]:
    remarks: list[str] = []
    if growth.resets:
        moments = ", ".join(f"{(when - origin_ns) / 1e9:.0f} s" for when in growth.resets)
        remarks.append(
            f"the server or the model was restarted (seen at {moments}); what it counted between the last "
            "look and the restart is missing"
        )
    if failures:
        remarks.append(f"{len(failures)} readings failed, such as {failures[0]}")
    if growth.first_ns is None or growth.first_ns > origin_ns + window.start_ns:
        remarks.append("the first reading came after the window had begun: the counts begin there")
    if growth.last_ns < origin_ns + window.end_ns:
        remarks.append("the last reading came before the window had ended: the counts end there")
    requests, answered = run["requests"], run["answered"]
    if requests is not None and answered is not None and not growth.resets and not failures:
        if requests > answered:
            remarks.append(
                f"the server counts {requests:.0f} answered requests, this load {answered:.0f}: failed ones "
                "are among the server's, or somebody else asks it too"
            )
        elif requests < answered:
            remarks.append(
                f"the server counts {requests:.0f} answered requests, this load {answered:.0f}: these are "
                "not the metrics of every server that answered"
            )
    return remarks


def _nothing(failures: Sequence[str]) -> str:
    return f"the server's metrics could not be read: {failures[0] if failures else 'no reading was made'}"
