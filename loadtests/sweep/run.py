"""``trimaran loadtest sweep``: measure one load after the other until the search has its answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from loadtests.run import check_files, run_load_test
from loadtests.sweep.config import SweepConfig
from loadtests.sweep.folder import SWEEP_NAME, SweepFolder, open_folder
from loadtests.sweep.page import render_sweep
from loadtests.sweep.point import Point
from loadtests.sweep.result import SweepResult, load_name
from loadtests.sweep.search import Search
from loadtests.sweep.tables import sweep_csv, sweep_markdown

__all__ = ["run_sweep"]

logger = logging.getLogger(__name__)


def run_sweep(
    config: SweepConfig, announce: Callable[[str], None] = logger.info, *, moved: bool = False
) -> SweepResult:
    """Search for the highest good load; write ``sweep.json``, ``sweep.html``, ``sweep.csv``, ``summary.md``.

    Every point is a load test in its own directory under ``points/``. The first Ctrl-C ends the sweep: what
    was measured until then is written, and the point that was cut is not one of it. Points of the same
    settings that the output directory holds already are kept.

    Args:
        config: the settings.
        announce: takes a line for the user after each point.
        moved: whether points of the same endpoint at another URL count as its own.

    Raises:
        LoadTestError: a setting, a file it names, the endpoint or the output cannot be used.
    """
    now = datetime.now(UTC)
    search = config.search()
    check_files(config.point(config.loads[0] if config.loads else config.start))
    folder = open_folder(config, now.astimezone(), moved=moved)
    started = folder.started or now.isoformat(timespec="seconds")
    if folder.points:
        announce(f"{len(folder.points)} points are measured already")
    interrupted = False
    try:
        while len(folder.points) < config.max_points:
            load = search.next_load(folder.points)
            if load is None:
                break
            point = _measure(config, folder, load)
            if point is None:
                interrupted = True
                break
            folder.points.append(point)
            folder.write(SWEEP_NAME, _json(_result(config, folder, search, started)))
            announce(f"[{len(folder.points)}] {load_name(config.over, load)}: {point.describe()}")
    except KeyboardInterrupt:
        interrupted = True
    result = _result(config, folder, search, started, interrupted=interrupted)
    _write_everything(folder, result)
    return result


def _measure(config: SweepConfig, folder: SweepFolder, load: float) -> Point | None:
    """Return the point at ``load``, or None where Ctrl-C cut it."""
    place = folder.place_for(load)
    # Other prompts and arrivals at each point: a server that remembers prefixes has not seen these.
    point = replace(config.point(load, folder.path / place), seed=config.seed + len(folder.points))
    done = run_load_test(point)
    if done.interrupted:
        folder.forget(place)
        return None
    results = json.loads(done.results_json.read_text(encoding="utf-8"))
    return Point.of(load, place, results)


def _result(
    config: SweepConfig, folder: SweepFolder, search: Search, started: str, *, interrupted: bool = False
) -> SweepResult:
    points = list(folder.points)
    return SweepResult(config, started, points, search.conclude(points), folder.path, interrupted)


def _json(result: SweepResult) -> str:
    return json.dumps(result.as_dict(), indent=2, ensure_ascii=False) + "\n"


def _write_everything(folder: SweepFolder, result: SweepResult) -> None:
    for name, text in (
        (SWEEP_NAME, _json(result)),
        ("sweep.csv", sweep_csv(result)),
        ("summary.md", sweep_markdown(result)),
        ("sweep.html", render_sweep(result)),
    ):
        folder.write(name, text)
    logger.info("sweep results are in %s", Path(folder.path))
