"""The Prometheus metrics that a model publishes through Triton's metrics port.

Triton has counters of requests and queue times; what an LLM needs beside them (time to first token,
inter-token latency, the batch in flight, the KV cache) comes from here, and so does how requests ended:
Triton counts every request that a response sender answered as a success, errors included. Every call into
Triton crosses a process border, so the metrics are published now and then and never from the engine's thread.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import PurePath
from typing import Any, Literal, get_args

from checkpoints.manifest import Manifest
from serving.engine.config import EngineConfig
from serving.engine.contract import Capacity, Counters
from serving.engine.observations import Observations, Quantity

__all__ = ["HISTOGRAM_BUCKETS", "ModelMetrics", "Outcome", "engine_facts"]

Outcome = Literal["ok", "cancelled", "invalid", "unavailable", "error"]
"""How a request ended: answered; left by its client; refused for what it asked; refused or lost for want of
a slot, a live engine or time; failed by a fault of ours."""

_LATENCY = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
_HISTOGRAMS: dict[Quantity, tuple[str, str, list[float]]] = {
    "queue": ("trimaran_queue_seconds", "From execute() to a slot of the engine", _LATENCY),
    "time_to_first_token": (
        "trimaran_time_to_first_token_seconds",
        "From execute() to the first token; Triton's own queue comes before",
        _LATENCY,
    ),
    "inter_token_latency": (
        "trimaran_inter_token_latency_seconds",
        "Time per token between two responses of a request",
        [0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5],
    ),
    "request_duration": (
        "trimaran_request_duration_seconds",
        "From execute() to the last token of a finished request",
        [*_LATENCY, 120.0, 300.0],
    ),
    "batch_size": (
        "trimaran_engine_batch_size",
        "Requests computed together in a decode step",
        [1, 2, 4, 8, 16, 32, 64, 128, 256],
    ),
}
HISTOGRAM_BUCKETS = {name: buckets for name, _, buckets in _HISTOGRAMS.values()}
"""Upper edges by metric; an objective on a latency must name one of them."""

_GAUGES = {
    "trimaran_running_requests": "Requests in a slot of the engine",
    "trimaran_waiting_requests": "Requests handed to the engine that wait for a slot",
    "trimaran_slots": "Requests the engine runs at once",
    "trimaran_kv_tokens_used": "Positions of the KV cache that requests hold",
    "trimaran_kv_tokens": "Positions of the KV cache",
    "trimaran_engine_batch_size_max": "Largest decode batch since the version was loaded",
    "trimaran_queue_limit": "Requests that may wait in Triton's queue before it refuses more; 0 is no limit",
    # A restart shows in the first alone (Triton has no process_start_time_seconds), and a model process that
    # was killed in the second alone: Triton goes on calling that model ready.
    "trimaran_loaded_timestamp_seconds": "When the version was loaded, in Unix time",
    "trimaran_heartbeat_timestamp_seconds": "When the model process last said that it lives, in Unix time",
}
_COUNTERS = {
    "trimaran_prompt_tokens_total": ("prompt_tokens", "Prompt tokens computed"),
    "trimaran_completion_tokens_total": ("completion_tokens", "Tokens generated"),
    "trimaran_prefill_seconds_total": ("prefill_seconds", "Time spent in prefill"),
    "trimaran_decode_seconds_total": ("decode_seconds", "Time spent in decode"),
    "trimaran_decode_steps_total": ("steps", "Decode steps"),
}


_HEARTBEAT_SECONDS = 1.0


def engine_facts(config: EngineConfig, manifest: Manifest, manifest_sha256: str) -> dict[str, str]:
    """Return what is served, as the labels of ``trimaran_engine_info``.

    Args:
        config: ``engine.json`` of the version.
        manifest: of the checkpoint in it.
        manifest_sha256: of that manifest's file, the name by which later stages know the checkpoint.
    """
    base = PurePath(manifest.base.source)
    return {
        "engine": config.engine,
        "weights": config.weights,
        "kv_dtype": config.kv_dtype,
        "max_context": str(config.max_context),
        # Where somebody keeps the files is nobody else's concern.
        "base": base.name if base.is_absolute() else str(base),
        "checkpoint": manifest.kind if manifest.method is None else f"{manifest.kind}, {manifest.method}",
        "manifest_sha256": manifest_sha256,
        "trimaran": config.trimaran_version,
    }


class ModelMetrics:
    """Metrics of one model version.

    Args:
        pb_utils: Triton's module ``triton_python_backend_utils``.
        labels: of every metric.
        capacity: of the engine.
        counters: of the engine.
        observations: of the engine loop.
        queue_limit: ``max_queue_size`` of the model's queue policy.
        facts: of ``engine_facts``.
    """

    def __init__(
        self,
        pb_utils: Any,
        labels: dict[str, str],
        capacity: Capacity,
        counters: Counters,
        observations: Observations,
        *,
        queue_limit: int,
        facts: dict[str, str],
    ) -> None:
        self._counters = counters
        self._observations = observations
        self._published: dict[str, float] = {}
        kinds = pb_utils.MetricFamily
        # A metric lives as long as its family is referenced.
        self._families: list[Any] = []

        def metric(name: str, description: str, kind: Any, **options: Any) -> Any:
            family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            self._families.append(family)
            return family.Metric(labels=labels, **options)

        self._gauges = {name: metric(name, text, kinds.GAUGE) for name, text in _GAUGES.items()}
        self._totals = {name: metric(name, text, kinds.COUNTER) for name, (_, text) in _COUNTERS.items()}
        self._histograms = {
            quantity: metric(name, text, kinds.HISTOGRAM, buckets=[float(edge) for edge in buckets])
            for quantity, (name, text, buckets) in _HISTOGRAMS.items()
        }
        info = pb_utils.MetricFamily(
            name="trimaran_engine_info",
            description="What is served, in its labels; always 1",
            kind=kinds.GAUGE,
        )
        self._families.append(info)
        self._info = info.Metric(labels={**labels, **facts})
        self._info.set(1.0)
        outcomes = pb_utils.MetricFamily(
            name="trimaran_requests_total", description="Requests by how they ended", kind=kinds.COUNTER
        )
        self._families.append(outcomes)
        self._requests = {
            outcome: outcomes.Metric(labels={**labels, "outcome": outcome}) for outcome in get_args(Outcome)
        }
        self._ended: Counter[Outcome] = Counter()
        self._lock = threading.Lock()
        self._set("trimaran_loaded_timestamp_seconds", time.time())
        self._set("trimaran_queue_limit", queue_limit)
        self._set("trimaran_slots", capacity.slots)
        self._set("trimaran_kv_tokens", capacity.kv_tokens)

    def count(self, outcome: Outcome) -> None:
        """Count one request that has ended; any thread may."""
        with self._lock:
            self._ended[outcome] += 1

    def publish(self, running: int, waiting: int) -> None:
        """Publish what has happened since the last call."""
        now = time.time()
        # Outside the range also when the clock was set back.
        if (
            not 0
            <= now - self._published.get("trimaran_heartbeat_timestamp_seconds", 0.0)
            < _HEARTBEAT_SECONDS
        ):
            self._set("trimaran_heartbeat_timestamp_seconds", now)
        self._set("trimaran_running_requests", running)
        self._set("trimaran_waiting_requests", waiting)
        self._set("trimaran_kv_tokens_used", self._counters.kv_tokens)
        self._set("trimaran_engine_batch_size_max", self._counters.peak_batch)
        for name, (counter, _) in _COUNTERS.items():
            value = float(getattr(self._counters, counter))
            grown = value - self._published.get(name, 0.0)
            if grown > 0:
                self._totals[name].increment(grown)
                self._published[name] = value
        with self._lock:
            ended, self._ended = self._ended, Counter()
        for outcome, requests in ended.items():
            self._requests[outcome].increment(float(requests))
        for quantity, samples in self._observations.take().items():
            for sample in samples:
                self._histograms[quantity].observe(float(sample))

    def _set(self, name: str, value: float) -> None:
        if self._published.get(name) != value:
            self._gauges[name].set(float(value))
            self._published[name] = value
