"""Metrics as they were at one moment, from Prometheus's text format; and the file that many of them make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

__all__ = ["PENDING", "Key", "Snapshot", "SnapshotWriter", "parse_metrics", "read_snapshots"]

PENDING = "nv_inference_pending_request_count"
"""Requests in Triton's queue; one series for each version that is loaded."""
_OURS = ("nv_", "trimaran_")


class Key(NamedTuple):
    """One time series of one endpoint."""

    endpoint: int
    """Which of the metrics URLs, from 0."""
    name: str
    """As Prometheus stores it, such as ``nv_inference_count``."""
    labels: tuple[tuple[str, str], ...]
    """In the order of their names."""
    counter: bool
    """Whether it only grows: a counter, or a part of a histogram."""

    def label(self, name: str) -> str | None:
        """Return the value of one label."""
        return dict(self.labels).get(name)


@dataclass
class Snapshot:
    """All series at one moment; or why there are none."""

    time_ns: int
    """On ``time.perf_counter_ns``, which all processes of a Linux machine share."""
    values: dict[Key, float] = field(default_factory=dict)
    failure: str | None = None
    """Why an endpoint could not be read; ``values`` is then empty."""


def parse_metrics(text: str, model: str, endpoint: int = 0) -> dict[Key, float]:
    """Return the series of Triton and of ours that are about ``model`` or about the whole server.

    A model ``NAME_infer`` (``trimaran export`` writes one) passes its requests on to ``NAME``, so it also has
    the engine of that one, and its queue.

    Raises:
        ValueError: it is not Prometheus's text format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[Key, float] = {}
    engine = model.removesuffix("_infer")
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(_OURS):
            continue
        of_engine = family.name.startswith("trimaran_") or family.name == PENDING
        models = (model, engine) if of_engine else (model,)
        for sample in family.samples:
            if sample.labels.get("model", model) not in models:
                continue
            # The parser gives every counter the suffix of OpenMetrics; Triton's have none.
            name = sample.name.removesuffix("_total") if family.name.startswith("nv_") else sample.name
            labels = tuple(sorted(sample.labels.items()))
            # The quantiles of a summary go up and down.
            total = sample.name.endswith(("_count", "_sum"))
            counter = family.type in ("counter", "histogram") or (family.type == "summary" and total)
            found[Key(endpoint, name, labels, counter)] = float(sample.value)
    return found


class SnapshotWriter:
    """Writes snapshots as JSON lines. Each has only what changed since the one before: most does not.

    Args:
        sink: takes the lines.
    """

    def __init__(self, sink: TextIO) -> None:
        self._sink = sink
        self._last: dict[Key, float] = {}
        self._numbers: dict[Key, int] = {}

    def write(self, snapshot: Snapshot) -> None:
        """Write one snapshot and let its line out at once."""
        line: dict[str, Any] = {"time_ns": snapshot.time_ns}
        if snapshot.failure is not None:
            line["failure"] = snapshot.failure
        else:
            values = snapshot.values
            new = [key for key in values if key not in self._numbers]
            for key in new:
                self._numbers[key] = len(self._numbers)
            line["new"] = new
            line["values"] = {
                self._numbers[key]: value for key, value in values.items() if self._last.get(key) != value
            }
            line["gone"] = [self._numbers[key] for key in self._last if key not in values]
            self._last = dict(values)
        self._sink.write(json.dumps(line) + "\n")
        self._sink.flush()


def read_snapshots(path: Path) -> Iterator[Snapshot]:
    """Read the snapshots that a ``SnapshotWriter`` wrote, in order. A last line that was cut is left out."""
    keys: list[Key] = []
    values: dict[Key, float] = {}
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            if not text.endswith("\n"):
                return
            line: Mapping[str, Any] = json.loads(text)
            if "failure" in line:
                yield Snapshot(line["time_ns"], failure=line["failure"])
                continue
            for endpoint, name, labels, counter in line["new"]:
                keys.append(Key(endpoint, name, tuple((key, value) for key, value in labels), counter))
            for number in line["gone"]:
                values.pop(keys[number], None)
            values.update((keys[int(number)], value) for number, value in line["values"].items())
            yield Snapshot(line["time_ns"], dict(values))
