"""What counters grew by, through restarts of the server, up to any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadtests.server_metrics.snapshot import Key, Snapshot

__all__ = ["Growth", "increase", "mean", "since"]

_LOADED = "trimaran_loaded_timestamp_seconds"


class Growth:
    """Adds up what every counter grew by since the first snapshot.

    A counter that is lower than before began again at zero (as Prometheus's ``increase`` has it): it grew by
    what it shows, and what was counted between the last look and the restart is lost. ``resets`` has those
    moments.

    Args:
        edges_ns: moments, ascending, at which ``at_edges`` wants to know the growth. Between two snapshots a
            counter is taken to grow evenly.
    """

    def __init__(self, edges_ns: Sequence[int]) -> None:
        self.total: dict[Key, float] = {}
        """Growth of every series since the first snapshot."""
        self.at_edges: list[dict[Key, float]] = []
        """The same at each edge that has passed."""
        self.first_ns: int | None = None
        self.last_ns = 0
        self.resets: list[int] = []
        """When a counter was first seen lower than before, or the model was loaded again."""
        self._edges = list(edges_ns)
        self._last: dict[Key, float] = {}

    def take(self, snapshot: Snapshot) -> dict[Key, float]:
        """Take the next snapshot and return what every counter grew by since the one before."""
        grown: dict[Key, float] = {}
        reset = False
        for key, value in snapshot.values.items():
            before = self._last.get(key)
            if key.name == _LOADED:
                reset |= before is not None and value != before
            if not key.counter:
                continue
            if before is None:
                # A label that was not there yet, such as the first failure, stands for zero; but what
                # there is at the first look belongs to the time before it.
                grown[key] = 0.0 if self.first_ns is None else value
            elif value < before:
                reset = True
                grown[key] = value
            else:
                grown[key] = value - before
        self._pass_edges(snapshot.time_ns, grown)
        for key, growth in grown.items():
            self.total[key] = self.total.get(key, 0.0) + growth
        if reset:
            self.resets.append(snapshot.time_ns)
        if self.first_ns is None:
            self.first_ns = snapshot.time_ns
        self.last_ns = snapshot.time_ns
        self._last.update(snapshot.values)
        return grown

    def finish(self) -> None:
        """Let the edges that were not reached see the last snapshot."""
        while len(self.at_edges) < len(self._edges):
            self.at_edges.append(dict(self.total))

    def _pass_edges(self, time_ns: int, grown: Mapping[Key, float]) -> None:
        while len(self.at_edges) < len(self._edges) and self._edges[len(self.at_edges)] <= time_ns:
            edge = self._edges[len(self.at_edges)]
            span = time_ns - self.last_ns
            share = 0.0 if self.first_ns is None else max(0.0, (edge - self.last_ns) / span if span else 1.0)
            keys = self.total.keys() | grown.keys()
            self.at_edges.append({k: self.total.get(k, 0.0) + share * grown.get(k, 0.0) for k in keys})


def since(later: Mapping[Key, float], earlier: Mapping[Key, float]) -> dict[Key, float]:
    """Return the growth between two moments."""
    return {key: value - earlier.get(key, 0.0) for key, value in later.items()}


def increase(growth: Mapping[Key, float], name: str, **labels: str) -> float | None:
    """Return the growth of a metric, summed over its series; None where the server has none of it."""
    found = [
        value
        for key, value in growth.items()
        if key.name == name and all(key.label(label) == wanted for label, wanted in labels.items())
    ]
    return sum(found) if found else None


def mean(total: float | None, count: float | None, factor: float = 1.0) -> float | None:
    """Return ``factor * total / count``; None where it is undefined."""
    return None if total is None or not count else factor * total / count
