"""Hands every arrival of an open loop to a user that is free, at the time when it is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import gevent
from gevent.event import AsyncResult

from loadtests.turn import Turn

__all__ = ["Dispatcher"]

_LAST_MOMENT_NS = 250_000_000
"""Locust takes a tenth of a second to stop, in which nothing else runs, before it tells us."""


class Dispatcher:
    """One greenlet sleeps until the next arrival, whatever the users do.

    The user that became free last gets it, so few connections carry the load and servers close none of them
    for idleness. Where no user is free the arrival waits, and the first that becomes free gets the oldest.

    Args:
        turns: the arrivals in the order of their times, each with its ``intended_ns``.
        now: nanoseconds since the load began; negative before.
    """

    def __init__(self, turns: Iterator[Turn], now: Callable[[], int]) -> None:
        self._turns = turns
        self._now = now
        self._idle: list[AsyncResult] = []
        self._waiting: deque[Turn] = deque()
        self._next: Turn | None = None
        self._over = False
        self._greenlet = gevent.Greenlet(self._run)

    def start(self) -> None:
        """Begin to hand out arrivals."""
        self._greenlet.start()

    def take(self) -> Turn | None:
        """Wait for an arrival and return it when it is due; None when there is no more. For users."""
        if self._waiting:
            turn = self._waiting.popleft()
            turn.ready_ns = self._now()
            return turn
        if self._over:
            return None
        seat = AsyncResult()
        self._idle.append(seat)
        try:
            return seat.get()
        except BaseException:  # Locust kills the user
            self._leave(seat)
            raise

    def close(self, last_moment_ns: int = _LAST_MOMENT_NS) -> list[Turn]:
        """Hand out no more. Wakes users that wait; returns the arrivals that were due and not sent.

        Args:
            last_moment_ns: with users free, what became due in so much time before now came after the end.
        """
        self._greenlet.kill()
        # A generator that lags has not even come to all that is due.
        due_ns = self._now() - (last_moment_ns if self._idle else 0)
        self._finish()
        turn = self._next or next(self._turns, None)
        while turn is not None and turn.intended_ns is not None and turn.intended_ns <= due_ns:
            self._waiting.append(turn)
            turn = next(self._turns, None)
        self._next = None
        unsent = list(self._waiting)
        self._waiting.clear()
        return unsent

    def _run(self) -> None:
        for turn in self._turns:
            assert turn.intended_ns is not None
            self._next = turn
            # A timer may be early by a fraction of a millisecond.
            while (left_ns := turn.intended_ns - self._now()) > 0:
                gevent.sleep(left_ns / 1e9)
            self._next = None
            self._give(turn)
        self._finish()

    def _give(self, turn: Turn) -> None:
        if self._idle:
            turn.ready_ns = turn.intended_ns
            self._idle.pop().set(turn)
        else:
            self._waiting.append(turn)

    def _leave(self, seat: AsyncResult) -> None:
        """Take a seat away; an arrival that was already handed to it goes to another user."""
        if seat in self._idle:
            self._idle.remove(seat)
        elif seat.ready() and seat.value is not None:
            if self._idle:
                self._give(seat.value)
            else:
                self._waiting.appendleft(seat.value)

    def _finish(self) -> None:
        self._over = True
        while self._idle:
            self._idle.pop().set(None)
