"""How many requests Triton's dynamic batcher hands over together, from its statistics of the model.

Its Prometheus metrics have only a mean. The statistics count every size, and come as counters of a metric of
our own beside the others, so that windows and restarts are treated alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loadtests.server_metrics.endpoint import fetch
from loadtests.server_metrics.snapshot import Key
from loadtests.target import Target, parse_targets

__all__ = ["BATCHES", "BatchSizes", "batch_sizes"]

BATCHES = "triton_batches"
"""Batches that were executed, by ``batch_size``."""

_ATTEMPTS = 3
"""How often a target is asked that has never answered."""


class BatchSizes:
    """Asks every target for the statistics of the model.

    A target that never answers with them (another server than Triton, or one that keeps them to itself) is
    soon left alone; one that has answered is asked again after a failure.

    Args:
        url: the targets, with commas between them.
        model: its name.
        headers: with the API key, if there is one.
        ca_file: authority of the certificate; None for those of the system.
    """

    def __init__(self, url: str, model: str, headers: Mapping[str, str], ca_file: Path | None) -> None:
        self._asks: dict[int, Callable[[float], Iterable[tuple[str, int, int]]]] = {}
        for number, target in enumerate(parse_targets(url)):
            ask = _over_grpc if target.scheme.startswith("grpc") else _over_http
            self._asks[number] = ask(target, model, headers, ca_file)
        self._model = model
        self._failures = dict.fromkeys(self._asks, 0)

    def read(self, timeout_s: float) -> dict[Key, float]:
        """Return the counters of all targets that have them."""
        found: dict[Key, float] = {}
        for number, ask in list(self._asks.items()):
            try:
                for version, size, count in ask(timeout_s):
                    labels = (("batch_size", str(size)), ("model", self._model), ("version", version))
                    found[Key(number, BATCHES, labels, True)] = float(count)
                self._failures.pop(number, None)
            except Exception:  # whatever it is, the load and the other metrics go on
                # One that has answered is asked again; one that never does has no such statistics.
                if number in self._failures:
                    self._failures[number] += 1
                    if self._failures[number] == _ATTEMPTS:
                        del self._asks[number]
        return found


def batch_sizes(growth: Mapping[Key, float]) -> dict[str, Any] | None:
    """Return how many batches of each size there were: ``sizes`` and ``counts``; None where it is unknown.

    Args:
        growth: of the counters, in the time that is asked for.
    """
    counts: dict[int, float] = {}
    for key, grown in growth.items():
        if key.name == BATCHES and grown > 0 and (size := key.label("batch_size")) is not None:
            counts[int(size)] = counts.get(int(size), 0.0) + grown
    if not counts:
        return None
    return {"sizes": sorted(counts), "counts": [round(counts[size], 3) for size in sorted(counts)]}


def _over_http(
    target: Target, model: str, headers: Mapping[str, str], ca_file: Path | None
) -> Callable[[float], Iterable[tuple[str, int, int]]]:
    url = f"{target.url}/v2/models/{quote(model, safe='')}/stats"

    def ask(timeout_s: float) -> list[tuple[str, int, int]]:
        content = json.loads(fetch(url, ca_file, timeout_s, headers))
        return [
            (str(one["version"]), int(batch["batch_size"]), int(batch["compute_infer"]["count"]))
            for one in content["model_stats"]
            for batch in one.get("batch_stats", [])
        ]

    return ask


def _over_grpc(
    target: Target, model: str, headers: Mapping[str, str], ca_file: Path | None
) -> Callable[[float], Iterable[tuple[str, int, int]]]:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    if target.scheme == "grpcs":
        authorities = None if ca_file is None else ca_file.read_bytes()
        security = grpc.ssl_channel_credentials(root_certificates=authorities)
        channel = grpc.secure_channel(target.address, security)
    else:
        channel = grpc.insecure_channel(target.address)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = service_pb2.ModelStatisticsRequest(name=model)
    metadata = tuple((name.lower(), value) for name, value in headers.items())

    def ask(timeout_s: float) -> list[tuple[str, int, int]]:
        answer = stub.ModelStatistics(request, timeout=timeout_s, metadata=metadata)
        return [
            (one.version, batch.batch_size, batch.compute_infer.count)
            for one in answer.model_stats
            for batch in one.batch_stats
        ]

    return ask
