"""Takes in what the users measure: writes the records, keeps the live counts."""

from __future__ import annotations

import time
from typing import Protocol

from loadtests.record import Record

__all__ = ["Collector", "Sink"]


class Sink(Protocol):
    """Takes the records, one line each: an open text file, or what sends them elsewhere."""

    def write(self, text: str, /) -> object:
        """Take one line with its newline."""


class Collector:
    """The one place where records of a run come together. Cooperative greenlets need no lock.

    Args:
        sink: takes the records; None keeps only the counts.
    """

    def __init__(self, sink: Sink | None) -> None:
        self.sink = sink
        self.origin_ns = time.perf_counter_ns()
        self.in_flight = 0
        self.ok = 0
        self.failed = 0
        self.cut = 0
        self.unsent = 0
        self.tokens = 0
        self.last_end_ns = 0

    def begin_in(self, nanoseconds: int) -> None:
        """Let the load begin so much later than now."""
        self.origin_ns = time.perf_counter_ns() + nanoseconds

    def now(self) -> int:
        """Return nanoseconds since the load began, negative before."""
        return time.perf_counter_ns() - self.origin_ns

    def add(self, record: Record) -> None:
        """Take a finished record."""
        if record.outcome == "ok":
            self.ok += 1
        elif record.outcome == "failed":
            self.failed += 1
        elif record.outcome == "cut":
            self.cut += 1
        else:
            self.unsent += 1
        self.last_end_ns = max(self.last_end_ns, record.end_ns)
        if self.sink is not None:
            self.sink.write(record.to_line() + "\n")
