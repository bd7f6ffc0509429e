"""Users who each wait for their answer before they ask again: ``concurrency`` requests in flight, always."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.traces import Trace
from benchmarks.workload import Item

__all__ = ["run_users"]


def run_users(
    items: Sequence[Item], concurrency: int, ask: Callable[[Item, Trace], Awaitable[None]]
) -> list[Trace]:
    """Send all requests through ``concurrency`` asyncio users.

    Args:
        items: the requests, sent in order.
        concurrency: users.
        ask: sends one request and notes in its trace what comes, until the answer has ended.
    """
    return asyncio.run(_run(items, concurrency, ask))


async def _run(
    items: Sequence[Item], concurrency: int, ask: Callable[[Item, Trace], Awaitable[None]]
) -> list[Trace]:
    left = iter(items)
    traces: list[Trace] = []

    async def user() -> None:
        for item in left:
            trace = Trace(item.index, time.perf_counter())
            traces.append(trace)
            await ask(item, trace)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(user())
    return traces
