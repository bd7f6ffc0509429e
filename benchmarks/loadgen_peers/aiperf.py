"""NVIDIA's aiperf."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.loadgen_peers.run import timed
from benchmarks.loadgen_peers.scenario import Measured, Scenario

__all__ = ["PINS", "measure"]

PINS = ("aiperf==0.13.0",)
# What it calls inter-token latency is a mean per request; the gaps themselves are these.
_METRICS = {"ttft": "time_to_first_token", "itl": "inter_chunk_latency", "e2e": "request_latency"}


def measure(scenario: Scenario, url: str, folder: Path, python: Path, tokenizer: Path) -> Measured:
    """Run the scenario and read its JSON export."""
    command = [
        *(str(python.with_name("aiperf")), "profile", "--model", scenario.model, "--url", url),
        *("--endpoint-type", "chat", "--streaming", "--tokenizer", str(tokenizer), "--ui", "none"),
        *("--synthetic-input-tokens-mean", "16", "--output-tokens-mean", str(scenario.tokens)),
        *("--concurrency", str(scenario.streams), "--request-count", str(scenario.requests)),
        *("--artifact-dir", "out"),
    ]
    if scenario.ramp_s:
        command += ["--concurrency-ramp-duration", str(scenario.ramp_s)]
    if scenario.rate is not None:
        command += ["--request-rate", str(scenario.rate), "--request-rate-mode", "constant"]
    cpu = timed(command, folder)
    export = json.loads((folder / "out" / "profile_export_aiperf.json").read_text(encoding="utf-8"))
    figures: dict[str, float | None] = {}
    for metric, name in _METRICS.items():
        for percentile in ("p50", "p95", "p99"):
            figures[f"{metric}_{percentile}"] = export.get(name, {}).get(percentile)
    with (folder / "out" / "profile_export.jsonl").open(encoding="utf-8") as records:
        answered = sum(1 for _ in records)
    return Measured(figures, cpu, answered)
