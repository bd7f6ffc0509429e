"""What all users of one run share: the workload, the request budget or schedule, and the collector."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from loadtests.arrivals.dispatcher import Dispatcher
from loadtests.collector import Collector
from loadtests.record import Record
from loadtests.turn import Turn
from loadtests.workloads.workload import Workload

__all__ = ["Session", "attach", "session_of"]


_TICK_NS = 10_000_000  # a timer that is late by less has not failed


@dataclass
class Session:
    """The shared state of one run."""

    workload: Workload
    collector: Collector
    max_requests: int | None = None
    sent: int = 0
    """Requests handed out, later turns of conversations included."""
    started: int = 0
    """Of them those that took a place of the run."""
    first: int = 0
    """Place of the first prompt to send. Workers that share a load start at different places."""
    step: int = 1
    """Places from one prompt to the next: the number of workers."""
    schedule: Sequence[int] | None = None
    """The arrivals of an open loop, of all workers: nanoseconds since the load began. None: a closed loop."""
    spawn_rate: float | None = None
    """Users that begin per second, where they shall begin one by one and not a second's users at once."""
    _user_numbers: Iterator[int] = field(default_factory=itertools.count)
    _dispatcher: Dispatcher | None = None

    def begin(self) -> None:
        """Start the clock of an open loop; the collector's origin says when it shows zero."""
        if self.schedule is not None:
            self._dispatcher = Dispatcher(iter(self._next, None), self.collector.now)
            self._dispatcher.start()

    def new_user(self) -> int:
        """Return the number of a new user, from 0."""
        return next(self._user_numbers)

    def spawn_delay_s(self, user: int) -> float:
        """Return how long a user waits before it begins: Locust starts those of a second together."""
        if self.spawn_rate is None:
            return 0.0
        return user % max(1, int(self.spawn_rate)) / self.spawn_rate

    def take(self) -> Turn | None:
        """Return what to send now, or None when there is nothing more to send in this run.

        In an open loop this waits until an arrival is due.
        """
        return self._next() if self._dispatcher is None else self._dispatcher.take()

    def follow(self, turn: Turn, answer: str) -> Turn | None:
        """Return the next turn of a conversation, or None when that or the run is over.

        Args:
            turn: the last one.
            answer: what the model said to it.
        """
        prompt = turn.request.prompt.turn_after(answer)
        if prompt is None or self.over:
            return None
        self.sent += 1
        number = turn.number + 1
        return Turn(self.workload.request(turn.place, number, prompt), turn.place, number=number)

    def close(self, *, at_once: bool = False) -> None:
        """Start no more requests: every user stops at its next turn.

        Arrivals of an open loop that were due are recorded as ``unsent``: they are part of the load that was
        asked for.

        Args:
            at_once: the load ends now, and not some time ago, as in plain Locust.
        """
        unsent: list[Turn] = []
        if self._dispatcher is not None:
            unsent = self._dispatcher.close(_TICK_NS) if at_once else self._dispatcher.close()
        self.max_requests = self.sent
        end_ns = self.collector.now()
        for turn in unsent:
            self.collector.add(
                Record(
                    start_ns=end_ns, end_ns=end_ns, user=-1, prompt=turn.request.prompt.index,
                    streamed=False, outcome="unsent", intended_ns=turn.intended_ns, ready_ns=end_ns,
                    sequence=turn.place, max_tokens=turn.request.max_tokens,
                )
            )  # fmt: skip

    def _next(self) -> Turn | None:
        if self.over:
            return None
        place = self.first + self.started * self.step
        if self.schedule is not None and place >= len(self.schedule):
            return None
        self.started += 1
        self.sent += 1
        intended_ns = None if self.schedule is None else self.schedule[place]
        return Turn(self.workload.request(place), place, intended_ns)

    @property
    def over(self) -> bool:
        """Whether all requests that the run may send are sent."""
        return self.max_requests is not None and self.sent >= self.max_requests


_sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()


def attach(environment: Any, session: Session) -> None:
    """Give a Locust ``Environment`` its session; users find it through the environment."""
    _sessions[environment] = session


def session_of(environment: Any) -> Session:
    """Return the session of a Locust ``Environment``."""
    return _sessions[environment]
