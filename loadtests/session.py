"""What all users of one run share: the workload, the request budget and the collector."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from loadtests.collector import Collector
from loadtests.prompts import Prompt

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
    _user_numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_user(self) -> int:
        """Return the number of a new user, from 0."""
        return next(self._user_numbers)

    def take(self) -> Prompt | None:
        """Return the next prompt to send, or None when the request budget is used up."""
        if self.max_requests is not None and self.started >= self.max_requests:
            return None
        prompts = self.workload.prompts
        prompt = prompts[(self.first + self.started * self.step) % len(prompts)]
        self.started += 1
        return prompt

    def close(self) -> None:
        """Start no more requests: every user stops at its next turn."""
        self.max_requests = self.started


_sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()


def attach(environment: Any, session: Session) -> None:
    """Give a Locust ``Environment`` its session; users find it through the environment."""
    _sessions[environment] = session


def session_of(environment: Any) -> Session:
    """Return the session of a Locust ``Environment``."""
    return _sessions[environment]
