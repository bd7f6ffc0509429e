"""What has been measured so far, on disk after every cell: a run that was cut short goes on where it was.

A cell is one peer, one concurrency, one round. Its key holds a hash of what decides its figures (the
peer's file and pins, and for our own engines our code), so figures of older code are never reused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.traces import Figures

__all__ = ["Cell", "CellStore", "hash_files"]


@dataclass(frozen=True)
class Cell:
    """One peer, one concurrency, one round."""

    figures: Figures
    """What was measured."""

    token_ids: dict[str, list[int]]
    """Request -> the tokens it got."""

    start_seconds: float
    """How long the peer took to start in this round."""

    peak_rss: int
    """Peak resident memory since that start, bytes."""


class CellStore:
    """Cells and verdicts about texts, by key, in one JSON file.

    Args:
        path: the file.
        fresh: begin anew even where it exists.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self._path = path
        self._data: dict[str, dict[str, Any]] = {"cells": {}, "right_tokens": {}}
        if path.is_file() and not fresh:
            self._data |= json.loads(path.read_text(encoding="utf-8"))

    def get(self, key: str) -> Cell | None:
        """Return a cell measured before."""
        found = self._data["cells"].get(key)
        return Cell(**{**found, "figures": Figures(**found["figures"])}) if found else None

    def put(self, key: str, cell: Cell) -> None:
        """Keep a cell."""
        self._data["cells"][key] = asdict(cell)
        self._save()

    def verdict(self, key: str) -> int | None:
        """Return how many tokens of a text were found right before."""
        return self._data["right_tokens"].get(key)

    def put_verdicts(self, verdicts: dict[str, int]) -> None:
        """Keep verdicts about texts."""
        self._data["right_tokens"].update(verdicts)
        self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._data), encoding="utf-8")
        os.replace(partial, self._path)


def hash_files(paths: Iterable[Path]) -> str:
    """Return a short hash of files' contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
