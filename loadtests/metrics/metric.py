"""What a metric is.

A request metric turns one record into samples, and their distribution over the run is reported. A run
metric turns all records, seen one by one, into one number. A metric that is undefined for a request gives no
sample, and one that is undefined for a run gives None: undefined is not zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from loadtests.record import Record

__all__ = ["RequestMetric", "RunMetric", "Window"]


@dataclass(frozen=True)
class Window:
    """The measured part of the run, in nanoseconds since the load began."""

    start_ns: int
    """End of the warm-up."""
    end_ns: int
    """When no more requests were started, or the last answer came if that was earlier; less the cool-down."""
    cooldown: bool = False
    """Whether a part after ``end_ns`` was cut off, in which requests were still sent."""

    @property
    def seconds(self) -> float:
        """Length."""
        return (self.end_ns - self.start_ns) / 1e9

    def holds(self, time_ns: int) -> bool:
        """Return whether a moment lies in the window."""
        return self.start_ns <= time_ns <= self.end_ns

    def place(self, record: Record) -> Literal["warmup", "measured", "cooldown"]:
        """Return in which part of the run a request was asked for."""
        if record.asked_ns < self.start_ns:
            return "warmup"
        return "cooldown" if self.cooldown and record.asked_ns >= self.end_ns else "measured"


class RequestMetric(ABC):
    """Samples per request that was asked for in the window."""

    tag: ClassVar[str]
    """Key in results.json."""
    header: ClassVar[str]
    """Name for people."""
    unit: ClassVar[Literal["ns", "tokens"]]
    outcomes: ClassVar[frozenset[str]] = frozenset({"ok"})
    """Which requests it is about (``Record.outcome``)."""

    @abstractmethod
    def samples(self, record: Record) -> Sequence[int]:
        """Return the samples of one request; none where the metric is undefined."""

    def at_least(self, record: Record) -> Sequence[int]:
        """Return what the samples of a request that was cut, or never sent, cannot be below.

        Its wait until then is the least that it would have taken. None where nothing can be said.
        """
        return []


class RunMetric(ABC):
    """One number for the run, an instance per run.

    Args:
        window: the measured part.
        objectives: what each request should keep: tag of a request metric -> most nanoseconds.
    """

    tag: ClassVar[str]
    header: ClassVar[str]
    unit: ClassVar[str]

    def __init__(self, window: Window, objectives: Mapping[str, int]) -> None:
        self.window = window
        self.objectives = objectives

    @abstractmethod
    def add(self, record: Record) -> None:
        """Take one request of the run; all are given, also of warm-up and cool-down."""

    def finish(self, overdue: Sequence[Record]) -> None:  # noqa: B027 - most have nothing to do
        """Take the requests that hung (``overdue.py``); who they are is known once all were added."""

    @abstractmethod
    def value(self) -> float | None:
        """Return the number, or None where it is undefined."""
