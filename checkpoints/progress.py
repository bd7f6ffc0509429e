"""The one progress bar: on stderr, and silent when that is not a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["progress"]


def progress(*, counts: bool = True) -> Progress:
    """Return a rich ``Progress`` (a context manager) with the columns used everywhere.

    Tasks may carry a ``note`` field, shown at the end of the line (``tokens/s``, a loss).

    Args:
        counts: show ``done/total``; turn off where the total is not a count.
    """
    console = Console(stderr=True)
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24)]
    if counts:
        columns.append(MofNCompleteColumn())
    columns += [TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn()]
    columns.append(TextColumn("{task.fields[note]}"))
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=False)
