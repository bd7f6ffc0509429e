"""A user's turn: what to send, and when it was meant to be sent."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.workloads.workload import Request

__all__ = ["Turn"]


@dataclass(slots=True)
class Turn:
    """One request before it is sent. Times are nanoseconds since the load began."""

    request: Request
    place: int = 0
    """Its number in the run, over all workers, from 0. The turns of a conversation share one."""
    intended_ns: int | None = None
    """When the schedule wants it sent; None in a closed loop, where that is when the user is free."""
    ready_ns: int | None = None
    """When a user was free for it: ``intended_ns`` where one waited for it; None in a closed loop."""
    number: int = 0
    """Its number in its conversation, from 0."""
