"""What all users of one run share: the workload, the request budget or schedule, and the collector."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from loadtests.arrivals.dispatcher import Dispatcher
from loadtests.collector import Collector
from loadtests.credentials import Credentials
from loadtests.prompts import Prompt
from loadtests.record import Record
from loadtests.turn import Turn

__all__ = ["Session", "Workload", "attach", "session_of"]


@dataclass(frozen=True)
class Workload:
    """What to ask, and how."""

    model: str
    """Name of the model."""
    prompts: list[Prompt]
    """Prompts in the order in which they are sent, round and round."""
    max_tokens: int
    """Most tokens per answer."""
    temperature: float
    """0 is greedy."""
    request_timeout_s: float
    """Seconds until a request counts as failed."""
    credentials: Credentials = field(default_factory=Credentials)
    """What the endpoint wants to see."""


@dataclass
class Session:
    """The shared state of one run."""

    workload: Workload
    collector: Collector
    max_requests: int | None = None
    started: int = 0
    first: int = 0
    """Place of the first prompt to send. Workers that share a load start at different places."""
    step: int = 1
    """Places from one prompt to the next: the number of workers."""
    schedule: Sequence[int] | None = None
    """The arrivals of an open loop, of all workers: nanoseconds since the load began. None: a closed loop."""
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

    def take(self) -> Turn | None:
        """Return what to send now, or None when there is nothing more to send in this run.

        In an open loop this waits until an arrival is due.
        """
        return self._next() if self._dispatcher is None else self._dispatcher.take()

    def close(self) -> None:
        """Start no more requests: every user stops at its next turn.

        Arrivals of an open loop that were due are recorded as ``unsent``: they are part of the load that was
        asked for.
        """
        unsent = [] if self._dispatcher is None else self._dispatcher.close()
        self.max_requests = self.started
        end_ns = self.collector.now()
        for turn in unsent:
            self.collector.add(
                Record(
                    start_ns=end_ns, end_ns=end_ns, user=-1, prompt=turn.prompt.index, streamed=False,
                    outcome="unsent", intended_ns=turn.intended_ns, ready_ns=end_ns,
                )
            )  # fmt: skip

    def _next(self) -> Turn | None:
        if self.max_requests is not None and self.started >= self.max_requests:
            return None
        place = self.first + self.started * self.step
        if self.schedule is not None and place >= len(self.schedule):
            return None
        self.started += 1
        prompts = self.workload.prompts
        intended_ns = None if self.schedule is None else self.schedule[place]
        return Turn(prompts[place % len(prompts)], place, intended_ns)


_sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()


def attach(environment: Any, session: Session) -> None:
    """Give a Locust ``Environment`` its session; users find it through the environment."""
    _sessions[environment] = session


def session_of(environment: Any) -> Session:
    """Return the session of a Locust ``Environment``."""
    return _sessions[environment]
