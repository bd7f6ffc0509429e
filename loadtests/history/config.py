"""Settings of ``trimaran loadtest history``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

__all__ = ["HistoryConfig"]


@dataclass
class HistoryConfig:
    """List the load tests of a folder, oldest to newest, with their main figures and verdicts."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("folder",)

    folder: Path = Path("loadtest-results")
    """Where the runs are: each is a directory with results.json, at any depth."""
    model: str | None = None
    """Only runs of this model."""
    last: int | None = None
    """Only so many of the newest."""
    json: bool = False
    """Print JSON instead of a table."""
    page: Path | None = None
    """Write a page with the trends here, such as history.html."""
    overwrite: bool = False
    """Replace the page if it exists."""
