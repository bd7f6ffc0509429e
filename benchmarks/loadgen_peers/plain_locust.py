"""Locust as its users write it: a task that reads the stream, and times of its own fired as events."""

from __future__ import annotations

import csv
from pathlib import Path

from benchmarks.loadgen_peers.run import timed
from benchmarks.loadgen_peers.scenario import Measured, Scenario

__all__ = ["PINS", "measure"]

PINS = ("locust==2.47.0",)
_COLUMNS = {"p50": "50%", "p95": "95%", "p99": "99%"}


def measure(scenario: Scenario, url: str, folder: Path, python: Path, tokenizer: Path) -> Measured:
    """Run the scenario and read Locust's table."""
    file = Path(__file__).with_name("plain_locustfile.py")
    # Its own arrivals are a closed loop; constant_throughput is what its documentation offers for a rate.
    command = [
        *(str(python), "-m", "locust", "--headless", "-f", str(file), "--host", url, "--csv", "out"),
        *("--users", str(scenario.streams), "--only-summary"),
        *("--spawn-rate", str(scenario.streams / (scenario.ramp_s or 1))),
        *("--model", scenario.model, "--tokens", str(scenario.tokens)),
        *("--requests", str(scenario.requests), "--run-time", "120s"),
    ]
    if scenario.rate is not None:
        command += ["--rate-per-user", str(scenario.rate / scenario.streams)]
    cpu = timed(command, folder)
    with (folder / "out_stats.csv").open(encoding="utf-8", newline="") as file_of_rows:
        rows = {row["Name"]: row for row in csv.DictReader(file_of_rows)}
    figures: dict[str, float | None] = {}
    for metric in ("ttft", "itl", "e2e"):
        for percentile, column in _COLUMNS.items():
            figures[f"{metric}_{percentile}"] = float(rows[metric][column]) if metric in rows else None
    return Measured(figures, cpu, int(rows["e2e"]["Request Count"]))
