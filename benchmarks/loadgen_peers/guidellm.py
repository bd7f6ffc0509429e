"""guidellm, of the vLLM project."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.loadgen_peers.run import timed
from benchmarks.loadgen_peers.scenario import Measured, Scenario

__all__ = ["PINS", "measure"]

PINS = ("guidellm==0.8.1",)
# Its inter-token latency is a mean per request, which is what the others call the time per output token.
_METRICS = {"ttft": ("time_to_first_token_ms", 1), "tpot": ("inter_token_latency_ms", 1),
            "e2e": ("request_latency", 1000)}  # fmt: skip


def measure(scenario: Scenario, url: str, folder: Path, python: Path, tokenizer: Path) -> Measured:
    """Run the scenario and read its JSON output."""
    profile = f"kind=concurrent,streams={scenario.streams},rampup_duration={scenario.ramp_s}"
    if scenario.rate is not None:
        profile = f"kind=constant,rate={scenario.rate:g}"
    command = [
        *(str(python.with_name("guidellm")), "run", "--disable-console"),
        *("--backend", f"kind=openai_http,target={url},model={scenario.model}", "--profile", profile),
        *("--constraint", f"kind=max_requests,count={scenario.requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={tokenizer}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={scenario.tokens}"),
        *("--output", "kind=json,path=out.json"),
    ]
    cpu = timed(command, folder)
    metrics = json.loads((folder / "out.json").read_text(encoding="utf-8"))["benchmarks"][0]["metrics"]
    figures: dict[str, float | None] = {}
    for metric, (name, factor) in _METRICS.items():
        found = (metrics.get(name, {}).get("successful") or {}).get("percentiles") or {}
        for percentile in ("p50", "p95", "p99"):
            value = found.get(percentile)
            figures[f"{metric}_{percentile}"] = None if value is None else factor * value
    return Measured(figures, cpu, int(metrics["request_totals"]["successful"]))
