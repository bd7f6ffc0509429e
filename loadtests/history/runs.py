"""Finds the runs of a folder and reads their main figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.errors import OutputError
from loadtests.history.config import HistoryConfig
from loadtests.report.texts import load_text
from loadtests.workloads.text import generation_text, prompts_text

__all__ = ["Run", "find_runs"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run in a few figures. Times are nanoseconds; None is undefined."""

    path: Path
    """Its output directory."""
    started: str
    """ISO 8601, UTC."""
    model: str
    load: str
    """The load in words, with all that must be equal for two runs to be compared."""
    outcome: str
    """``passed``, ``failed`` or ``invalid``."""
    reasons: tuple[str, ...]
    answered: int
    failed: int
    output_tokens_per_second: float | None
    requests_per_second: float | None
    goodput: float | None
    ttft_p50: int | None
    ttft_p95: int | None
    itl_p50: int | None
    itl_p99: int | None
    e2e_p50: int | None
    e2e_p95: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return {**asdict(self), "path": str(self.path), "reasons": list(self.reasons)}


def find_runs(config: HistoryConfig) -> list[Run]:
    """Return the runs, oldest first. What is no run, or cannot be read, is left out and said in the log.

    Raises:
        OutputError: the folder does not exist, or holds no run.
    """
    if not config.folder.is_dir():
        raise OutputError(f"folder: {config.folder} does not exist; give the folder that holds the runs")
    found = sorted(_read_all(config.folder), key=lambda run: (run.started, str(run.path)))
    if not found:
        raise OutputError(
            f"folder: {config.folder} holds no run of `trimaran loadtest` (a directory with results.json)"
        )
    runs = [run for run in found if config.model is None or run.model == config.model]
    if not runs:
        models = ", ".join(sorted({run.model for run in found}))
        raise OutputError(f"model: no run of {config.model!r} in {config.folder}; there are: {models}")
    return runs[-config.last :] if config.last is not None else runs


def _read_all(folder: Path) -> Iterator[Run]:
    sweeps = {path.parent for path in folder.rglob("sweep.json")}
    for path in folder.rglob("results.json"):
        if sweeps.intersection(path.parents):
            continue  # a point of it, bad on purpose more often than not
        # An output directory that is being written has a hidden name.
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            yield _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is left out: it is no result of a load test (%r)", path, error)


def _read(path: Path) -> Run:
    results = json.loads(path.read_text(encoding="utf-8"))
    config, totals = results["config"], results["totals"]

    def latency(tag: str, statistic: str) -> int | None:
        summary = results["metrics"][tag]
        return None if summary is None else int(summary[statistic])

    return Run(
        path=path.parent,
        started=results["started"],
        model=config["model"],
        load=f"{load_text(config)}, {config['protocol']}, {prompts_text(config)}, {generation_text(config)}",
        outcome=results["verdict"]["outcome"],
        reasons=tuple(results["verdict"]["reasons"]),
        answered=results["requests"]["ok"],
        failed=results["requests"]["failed"],
        output_tokens_per_second=totals["output_tokens_per_second"]["value"],
        requests_per_second=totals["requests_per_second"]["value"],
        goodput=totals["goodput"]["value"],
        **{
            f"{tag}_{statistic}": latency(tag, statistic)
            for tag, statistic in (
                ("ttft", "p50"), ("ttft", "p95"), ("itl", "p50"), ("itl", "p99"), ("e2e", "p50"),
                ("e2e", "p95"),
            )
        },
    )  # fmt: skip
