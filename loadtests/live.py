"""The one line in the terminal while a load test runs; silent when stderr is no terminal."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

__all__ = ["LiveLine", "rates"]

_RATE_SPAN = 6  # status events, so rates are over about three seconds


def rates(statuses: deque[dict[str, Any]]) -> tuple[float, float]:
    """Return requests/s and tokens/s between the oldest and the newest status event."""
    if len(statuses) < 2:
        return 0.0, 0.0
    old, new = statuses[0], statuses[-1]
    seconds = max((new["time_ns"] - old["time_ns"]) / 1e9, 1e-9)
    return (new["ok"] - old["ok"]) / seconds, (new["tokens"] - old["tokens"]) / seconds


class LiveLine:
    """Shows elapsed and total time, users, requests/s, tokens/s and failures. A context manager."""

    def __init__(self, duration_s: float) -> None:
        console = Console(stderr=True)
        self._duration_s = duration_s
        self._statuses: deque[dict[str, Any]] = deque(maxlen=_RATE_SPAN)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("load test", total=duration_s, note="checking the endpoint")

    def __enter__(self) -> LiveLine:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Take an event of the child process."""
        if event["event"] == "stopping":
            note = f"waiting for {event['in_flight']} requests in flight"
            self._progress.update(self._task, completed=self._duration_s, note=note)
        elif event["event"] == "status":
            self._statuses.append(event)
            elapsed_s = min(max(event["time_ns"], 0) / 1e9, self._duration_s)
            request_rate, token_rate = rates(self._statuses)
            note = (
                f"{elapsed_s:.0f}/{self._duration_s:.0f} s  {event['users']} users  "
                f"{request_rate:.1f} req/s  "
                f"{token_rate:.0f} tokens/s  {event['failed']} failed"
            )
            self._progress.update(self._task, completed=elapsed_s, note=note)
