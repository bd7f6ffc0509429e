"""Gauges that are charted, and the number that each gives for the whole server at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from loadtests.server_metrics.snapshot import PENDING, Key

__all__ = ["GAUGES", "gauges"]

# Tag -> (metric, whether several series make a sum or a mean).
_SUMS = {
    "queued": (PENDING, "sum"),
    "waiting": ("trimaran_waiting_requests", "sum"),
    "running": ("trimaran_running_requests", "sum"),
    "slots": ("trimaran_slots", "sum"),
    "cpu_share": ("nv_cpu_utilization", "mean"),
    "memory_bytes": ("nv_cpu_memory_used_bytes", "sum"),
    "gpu_share": ("nv_gpu_utilization", "mean"),
    "gpu_memory_bytes": ("nv_gpu_memory_used_bytes", "sum"),
    "gpu_power_watts": ("nv_gpu_power_usage", "sum"),
}
GAUGES = (*_SUMS, "kv_share")
"""Tags: requests in Triton's queue (``queued``), in the engine without a slot (``waiting``) and in a slot
(``running``), the slots there are; busy share of the host's processors and of the GPUs, 0 to 1; memory used
there; power drawn; share of the KV cache's positions that requests hold."""


def gauges(values: Mapping[Key, float]) -> dict[str, float | None]:
    """Return every gauge; None for what this server does not publish.

    Of a model with several versions only the loaded ones count: series of others stay until the server ends.
    """
    loaded = {_version(key) for key in values if key.name == PENDING}

    def series(name: str) -> list[float]:
        return [
            value
            for key, value in values.items()
            if key.name == name and (not loaded or key.label("version") is None or _version(key) in loaded)
        ]

    found: dict[str, float | None] = {}
    for tag, (name, kind) in _SUMS.items():
        each = series(name)
        found[tag] = None if not each else sum(each) if kind == "sum" else fmean(each)
    used, there = series("trimaran_kv_tokens_used"), series("trimaran_kv_tokens")
    found["kv_share"] = sum(used) / sum(there) if used and sum(there) else None
    return found


def _version(key: Key) -> tuple[int, str | None, str | None]:
    return key.endpoint, key.label("model"), key.label("version")
