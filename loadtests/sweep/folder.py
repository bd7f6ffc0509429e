"""The output directory of a sweep. It grows point by point, and a sweep that was cut goes on from it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtests.config_json import config_to_json
from loadtests.errors import OutputError
from loadtests.output import default_output
from loadtests.sweep.config import SweepConfig
from loadtests.sweep.point import Point

__all__ = ["SweepFolder", "open_folder"]

SWEEP_NAME = "sweep.json"
_POINTS = "points"
# What may differ when a sweep goes on: these say which points are measured, not how.
_SEARCH = {
    "start", "factor", "highest", "loads", "max_points", "precision", "min_gain", "repeats", "min_rate",
    "min_concurrency", "output", "overwrite",
}  # fmt: skip


class SweepFolder:
    """The directory, and the points that it held already."""

    def __init__(self, path: Path, points: list[Point], started: str | None) -> None:
        self.path = path
        self.points = points
        self.started = started
        """When the sweep that is continued began, ISO 8601."""

    def place_for(self, load: float) -> str:
        """Return the directory of the next load test at ``load``, relative to ``path``."""
        name = f"{load:g}"
        repeat = sum(point.load == load for point in self.points) + 1
        return f"{_POINTS}/{name}" if repeat == 1 else f"{_POINTS}/{name}-{repeat}"

    def write(self, name: str, text: str) -> None:
        """Write a file so that it is there whole or not at all."""
        temporary = self.path / f".{name}.tmp-{os.getpid()}"
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self.path / name)
        except OSError as error:
            raise OutputError(f"output: {self.path / name} cannot be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def forget(self, place: str) -> None:
        """Remove a load test that was cut."""
        shutil.rmtree(self.path / place, ignore_errors=True)


def open_folder(config: SweepConfig, now: datetime, *, moved: bool = False) -> SweepFolder:
    """Return the output directory, made where it is not there.

    Args:
        config: the settings.
        now: names the default directory.
        moved: whether the endpoint may have another URL than before and still be the same.

    Raises:
        OutputError: it holds something else, or a sweep with other settings, or cannot be made.
    """
    target = config.output
    if target is None:
        plain = default_output(now)
        target = plain.with_name(f"sweep-{plain.name}")
    target = target.absolute()
    before = _read(target)
    if before is None and target.exists() and not _is_empty(target):
        raise OutputError(f"output: {target} exists and holds no sweep; choose another")
    if before is not None and config.overwrite:
        shutil.rmtree(target)
        before = None
    ignored = _SEARCH | {"url", "metrics_url"} if moved else _SEARCH
    if before is not None and (different := _differences(before["config"], config, ignored)):
        raise OutputError(
            f"output: {target} holds a sweep of other settings ({'; '.join(different)}); choose another, or "
            "start over with --overwrite"
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: {target} cannot be made: {error}") from error
    if before is None:
        return SweepFolder(target, [], None)
    kept = [Point.from_dict(point) for point in before["points"]]
    return SweepFolder(target, kept, before["started"])


def _is_empty(target: Path) -> bool:
    """Whether nothing is in a directory but what a first load test that could not start has left."""
    if not target.is_dir():
        return False
    held = list(target.iterdir())
    return not held or (held == [target / _POINTS] and not any(held[0].iterdir()))


def _read(target: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((target / SWEEP_NAME).read_text(encoding="utf-8"))
        _ = found["config"]["over"], found["points"], found["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _differences(before: dict[str, Any], config: SweepConfig, ignored: set[str]) -> list[str]:
    now = config_to_json(config)
    names = [one.name for one in fields(SweepConfig) if one.init and one.name not in ignored]
    return [
        f"{name}: {before[name]}, not {now[name]}"
        for name in names
        if name in before and before[name] != now[name]
    ]
