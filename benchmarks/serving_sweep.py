"""An example of ``trimaran sweep``: serving configurations of SmolLM2-135M on this machine, side by side.

Exports the demo's model in each configuration, serves it with Triton, loads it, and says which one to use
(docs/serving-sweep.md). Takes four to six minutes on two cores.

  python -m benchmarks.serving_sweep
  python -m benchmarks.serving_sweep --point-duration 10s

Results go to benchmarks/results/serving_sweep.{json,md}. The last line printed is one JSON object:
"tokens_per_second/CONFIGURATION" and "ttft_p95_ms/CONFIGURATION", each at the most users that were measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_facts
from benchmarks.preparation import demo_checkpoint, tell
from serving.cache import cache_directory
from trimaran.sweep.config import ServingSweepConfig
from trimaran.sweep.result import ServingSweepResult
from trimaran.sweep.run import sweep_serving

__all__ = ["main", "page", "ratios"]

CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"engine": "torch"},
    {"engine": "torch", "queue_delay_us": 1000, "preferred_batch_sizes": [4, 8]},
    {"engine": "openvino", "weights": "int8", "kv_dtype": "u8"},
    {"engine": "openvino", "weights": "int8", "kv_dtype": "u8", "slots": 4},
)
_KEPT = ("label", "settings", "error", "curve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; return the exit code: 1 where no configuration meets the limits."""
    options = _parse(arguments)
    checkpoint = options.checkpoint or demo_checkpoint()
    cache = cache_directory() / "bench"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="serving-sweep-", dir=cache) as folder:
        config = ServingSweepConfig(
            checkpoint=checkpoint,
            output=Path(folder) / "out",
            export={"max_context": 1024, "fidelity": False, "infer_model": False},
            configurations=[dict(one) for one in CONFIGURATIONS],
            loads=options.loads,
            point_duration=options.point_duration,
            warmup=options.warmup,
            max_tokens=options.max_tokens,
            slo={"ttft_p95": options.ttft_p95, "failure_rate": 0},
        )
        result = sweep_serving(config, tell)
    found = result.as_dict()
    results = {
        "machine": machine_facts(),
        "load": {
            "users": options.loads, "point_duration": options.point_duration,
            "max_tokens": options.max_tokens, "ttft_p95": options.ttft_p95,
        },
        "configurations": [{name: one[name] for name in _KEPT} for one in found["configurations"]],
        "pareto": found["pareto"],
        "best": found["best"],
    }  # fmt: skip
    results["ratios"] = ratios(result)
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "serving_sweep"
    target.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = page(result, results["machine"])
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    print(json.dumps(results["ratios"]))
    return 0 if result.best is not None else 1


def ratios(result: ServingSweepResult) -> dict[str, float]:
    """Return tokens per second and the 95th percentile of TTFT of each configuration at its highest load."""
    found: dict[str, float] = {}
    for one in result.outcomes:
        if one.curve:
            point = max(one.curve, key=lambda point: point.load)
            label = one.candidate.label
            found[f"tokens_per_second/{label}"] = round(point.output_tokens_per_second, 1)
            if point.ttft_p95_ns is not None:
                found[f"ttft_p95_ms/{label}"] = round(point.ttft_p95_ns / 1e6, 1)
    return found


def page(result: ServingSweepResult, machine: dict[str, Any]) -> str:
    """Return the Markdown page."""
    config = result.config
    head, *rows = result.table()
    lines = [
        "# Serving configurations, side by side",
        "",
        f"Made by `python -m benchmarks.serving_sweep` on {machine['cpu']}, {machine['cores']} cores, which "
        f"the load generator shares: {config.max_tokens} tokens an answer, {config.point_duration} a load, "
        f"limits {config.slo}.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    lines += [f"{one.candidate.label} was skipped: {one.error}" for one in result.outcomes if one.error]
    if (best := result.best) is None:
        lines.append("No configuration meets the limits.")
    else:
        lines.append(
            f"To use: **{best.configuration}**, {best.point.describe()} at {result.load(best.point)}."
        )
    return "\n".join(lines) + "\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving_sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, metavar="FOLDER", help="another one than the demo's")
    add("--loads", type=_numbers, default=[1, 8], metavar="N,N", help="users at once (default 1,8)")
    add("--point-duration", default="20s", metavar="TIME", help="of each load (default 20s)")
    add("--warmup", default="3s", metavar="TIME", help="of it, not measured (default 3s)")
    add("--max-tokens", type=int, default=64, metavar="N", help="of an answer (default 64)")
    add("--ttft-p95", default="1s", metavar="TIME", help="the limit (default 1s)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
