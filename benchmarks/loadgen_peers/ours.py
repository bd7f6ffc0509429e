"""``trimaran loadtest``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.loadgen_peers.run import timed
from benchmarks.loadgen_peers.scenario import Measured, Scenario

__all__ = ["PINS", "measure"]

PINS: tuple[str, ...] = ()


def measure(scenario: Scenario, url: str, folder: Path, python: Path, tokenizer: Path) -> Measured:
    """Run the scenario and read ``results.json``."""
    command = [
        *(sys.executable, "-m", "trimaran", "loadtest", "--url", url, "--protocol", scenario.protocol),
        *("--model", scenario.model, "--users", str(scenario.streams)),
        *("--max-tokens", str(scenario.tokens), "--max-requests", str(scenario.requests)),
        *("--max-failure-rate", "1", "--output", "out", "--max-lateness-p99", "1s"),
        *("--max-loop-lag-p95", "1h"),  # what it is, the results say
    ]
    if scenario.rate is None:
        command += ["--duration", "120s"]
        if scenario.ramp_s:
            command += ["--spawn-rate", str(scenario.streams / scenario.ramp_s)]
    else:
        command += ["--arrivals", "constant", "--rate", str(scenario.rate)]
        command += ["--duration", f"{scenario.requests / scenario.rate}s"]
    cpu = timed(command, folder)
    results = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))
    figures: dict[str, float | None] = {}
    for metric in ("ttft", "itl", "tpot", "e2e", "lateness"):
        summary = results["metrics"][metric]
        for percentile in ("p50", "p95", "p99"):
            figures[f"{metric}_{percentile}"] = summary and summary[percentile] / 1e6
    lag = results["load_generator"]["loop_lag"]
    figures["loop_lag_p95"] = lag and lag["p95"] / 1e6
    return Measured(figures, cpu, results["requests"]["ok"])
