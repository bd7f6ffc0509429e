"""``trimaran loadtest history``: list the runs, and draw their trends where a page is asked for."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from loadtests.errors import ConfigError, OutputError
from loadtests.history.config import HistoryConfig
from loadtests.history.page import history_page
from loadtests.history.runs import Run, find_runs
from loadtests.history.table import history_table

__all__ = ["History", "history"]


@dataclass(frozen=True)
class History:
    """What the command prints."""

    config: HistoryConfig
    runs: list[Run]

    def as_text(self) -> str:
        """Return the table."""
        return history_table(self.runs, self.config.folder)

    def as_json(self) -> str:
        """Return the runs as a JSON list, oldest first; times in nanoseconds, null where undefined."""
        return json.dumps([run.as_dict() for run in self.runs], indent=2, ensure_ascii=False)


def history(config: HistoryConfig) -> History:
    """Find the runs, and write the page where the settings name one.

    Raises:
        ConfigError: a setting is out of range.
        OutputError: there is no run, or the page cannot be written.
    """
    if config.last is not None and config.last < 1:
        raise ConfigError(f"last: {config.last} is too small; the least is 1")
    page = config.page
    if page is not None and page.exists() and not config.overwrite:
        raise OutputError(f"page: {page} exists already; choose another, or replace it with --overwrite")
    runs = find_runs(config)
    if page is not None:
        temporary = page.with_name(f".{page.name}.tmp-{os.getpid()}")
        try:
            page.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(history_page(runs, config.folder), encoding="utf-8")
            temporary.replace(page)
        except OSError as error:
            raise OutputError(f"page: {page} cannot be written: {error}") from error
    return History(config, runs)
