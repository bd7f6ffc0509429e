"""The records of several workers become those of one run.

A worker's times are nanoseconds of its own monotonic clock. Each message says when it was sent on that
clock; the master knows when it arrived on its own. The difference is the shift between the clocks plus
the way of the message, so the smallest difference seen is the best estimate of the shift. It is too
large by the fastest way, and does not depend on the hosts' wall clocks. One shift per worker: latencies
stay exact, only how the workers' requests line up depends on it.

The idea is Cristian's (Probabilistic clock synchronization, 1989), one way.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO

from loadtests.loop_lag import lag_in_brief
from loadtests.record import Record, read_records

__all__ = ["WorkerShare", "merge"]


@dataclass
class WorkerShare:
    """What one worker contributed."""

    name: str
    """Locust's id: host and a random number."""
    index: int
    """Locust's index of the worker."""
    path: Path
    """Its records as they came, on its clock."""
    received: int = 0
    """Records that arrived."""
    shift_ns: int | None = None
    """Its clock to the master's."""
    cpu_seconds: float = 0.0
    """Processor time of its load, as last said."""
    loop_lag: dict[str, Any] | None = None
    """How late it saw what came to it, as said when it was done."""
    done: bool = False
    """It said that there is no more."""
    announced: int | None = None
    """Records that it said it had sent, when it was done."""
    lost: bool = False
    """The master has not heard of it for some seconds."""
    _sink: TextIO | None = field(default=None, repr=False)

    def take(self, data: dict[str, Any], arrived_ns: int) -> None:
        """Take a message of the worker that arrived at this time of the master's clock."""
        difference = arrived_ns - int(data["sent_ns"])
        self.shift_ns = difference if self.shift_ns is None else min(self.shift_ns, difference)
        self.cpu_seconds = float(data["cpu_seconds"])
        lines = data.get("lines") or []
        if lines:
            if self._sink is None:
                self._sink = self.path.open("w", encoding="utf-8")
            self._sink.write("\n".join(lines) + "\n")
            self.received += len(lines)

    def close(self) -> None:
        """Close the file of records."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def records(self, number_of: Callable[[int], int]) -> Iterator[Record]:
        """Yield the records on the master's clock, users renumbered by ``number_of``."""
        if not self.received:
            return
        shift = self.shift_ns or 0
        for record in read_records(self.path):
            record.start_ns += shift
            record.end_ns += shift
            record.chunk_ns = [seen + shift for seen in record.chunk_ns]
            if record.intended_ns is not None and record.ready_ns is not None:
                record.intended_ns += shift
                record.ready_ns += shift
            if record.user >= 0:
                record.user = number_of(record.user)
            yield record

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for results.json."""
        return {
            "name": self.name,
            "index": self.index,
            "requests": self.received,
            "cpu_seconds": round(self.cpu_seconds, 3),
            "clock_shift_ns": self.shift_ns,
            "loop_lag": lag_in_brief(self.loop_lag),
            "finished": self.done,
        }


def merge(shares: list[WorkerShare], target: Path) -> None:
    """Write all records to ``target`` in the order in which they ended; no two users have one number.

    Each worker sends its own in that order, so no more than one record of each is in memory.
    """
    numbers: dict[tuple[str, int], int] = {}
    parts: list[Iterator[Record]] = []
    for share in shares:
        share.close()

        def number_of(user: int, name: str = share.name) -> int:
            return numbers.setdefault((name, user), len(numbers))

        parts.append(share.records(number_of))
    with target.open("w", encoding="utf-8") as sink:
        for record in heapq.merge(*parts, key=attrgetter("end_ns")):
            sink.write(record.to_line() + "\n")
