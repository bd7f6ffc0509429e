"""Load generators side by side: what each says of a server whose delays are known, and its processor time.

Ours, aiperf, guidellm and a plain locustfile, each as its users start it, against one scripted server that
stamps every token it sends; ours over Triton's two streams too. The error of a figure is its distance from
the same percentile of these stamps.

  python -m benchmarks.loadgen
  python -m benchmarks.loadgen --tools ours,plain-locust --scenarios 0,3 --rounds 1

Results go to benchmarks/results/loadgen.{json,md}. The last line printed is one JSON object:
"max_error_ms/TOOL" over the median and 95th percentile of TTFT, ITL, time per output token and end-to-end
latency of all closed-loop scenarios, and "cpu_ms_per_1k_tokens/TOOL" of the scenario with most tokens, less a
run of one request.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environments import interpreter_for
from benchmarks.failures import PeerFailure
from benchmarks.loadgen_peers.scenario import FIGURES, SCENARIOS, Measured, Scenario
from benchmarks.loadgen_report import page, ratios
from benchmarks.machine import machine_facts
from benchmarks.options import numbers
from benchmarks.preparation import demo_checkpoint, tell
from benchmarks.processes import end
from loadtests.metrics.distribution import Distribution
from serving.cache import cache_directory

__all__ = ["main", "scripted_server", "served_figures"]

TOOLS = {
    "ours": "ours", "aiperf": "aiperf", "guidellm": "guidellm", "plain-locust": "plain_locust",
    "ours-generate_stream": "ours", "ours-grpc": "ours",
}  # fmt: skip
"""What can be run -> its module. ``ours-PROTOCOL`` speaks Triton's, which no other tool does."""
_ONE = Scenario("one request", 50, 20, 10, 1, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    scenarios = [SCENARIOS[number] for number in options.scenarios]
    cache = cache_directory() / "bench"
    tokenizer = demo_checkpoint()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="loadgen-", dir=cache) as folder:
        for number in range(options.rounds):
            # Every other round backwards: no tool always comes after the same one.
            for tool in options.tools if number % 2 == 0 else reversed(options.tools):
                for scenario in (_ONE, *scenarios):
                    where = Path(folder) / f"{tool}-{number}-{len(runs)}"
                    where.mkdir()
                    runs.append(_run(tool, scenario, where, cache, tokenizer, options.keep))
    results = {
        "machine": machine_facts(),
        "rounds": options.rounds,
        "versions": {tool: list(import_module(_module(tool)).PINS) for tool in options.tools},
        "runs": runs,
        "summary": _summary(runs, options.tools, scenarios),
    }
    results["ratios"] = ratios(results["summary"])
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "loadgen"
    target.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(page(results), encoding="utf-8")
    print(page(results))
    print(json.dumps(results["ratios"]))
    return 0


def _run(
    tool: str, scenario: Scenario, folder: Path, cache: Path, tokenizer: Path, keep: Path | None
) -> dict[str, Any]:
    module = import_module(_module(tool))
    home = cache / TOOLS[tool]
    home.mkdir(exist_ok=True)
    scenario = replace(
        scenario, protocol=tool.partition("-")[2] if tool.startswith("ours-") else "openai_chat"
    )
    row: dict[str, Any] = {"tool": tool, "scenario": scenario.name}
    try:
        python = interpreter_for(home, module.PINS, log=home / "install.log", timeout=1200)
        with scripted_server(scenario) as (url, truth_url):
            found: Measured = module.measure(scenario, url, folder, python, tokenizer)
            truth = served_figures(truth_url)
    except PeerFailure as failure:
        tell(f"{tool}, {scenario.name}: {failure}")
        if keep is not None:
            (keep / f"{folder.name}.log").write_bytes((folder / "log").read_bytes())
        return {**row, "failure": str(failure)}
    row |= {"cpu_seconds": found.cpu_seconds, "figures": found.figures, "truth": truth}
    row["answered"], row["served"] = found.answered, truth.pop("served")
    row["tokens"] = truth.pop("tokens")
    errors = {
        name: abs(seen - truth[name])
        for name in FIGURES
        if name in truth and (seen := found.figures.get(name)) is not None
    }
    worst = max(errors, key=errors.__getitem__) if errors else "nothing"
    tell(
        f"{tool}, {scenario.name}: worst {worst} off by {errors.get(worst, 0):.1f} ms, "
        f"{found.cpu_seconds:.1f} s of CPU for {row['tokens']} tokens"
    )
    return {**row, "errors": errors}


@contextmanager
def scripted_server(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Run the scripted server in a process of its own; yield the URL to load, and that of its stamps."""
    over_grpc = scenario.protocol == "grpc"
    options = ["--grpc"] if over_grpc else []
    command = [sys.executable, "-m", "benchmarks.loadgen_peers.server", *options, scenario.model]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        yield f"grpc://127.0.0.1:{int(process.stdout.readline())}" if over_grpc else url, url
    finally:
        end(process)


def served_figures(url: str) -> dict[str, float]:
    """Return the server's own figures, in milliseconds, of the requests it answered in full.

    ``late`` is how much later than it meant to it sent each token.
    """
    with urllib.request.urlopen(f"{url}/truth", timeout=60) as answer:
        rows = [row for row in json.load(answer) if row["sent_ns"]]
    tokens = max(len(row["sent_ns"]) for row in rows)
    rows = [row for row in rows if len(row["sent_ns"]) == tokens]  # not what a tool asks to warm up
    samples = {
        "ttft": [row["sent_ns"][0] - row["came_ns"] for row in rows],
        "itl": [later - earlier for row in rows for earlier, later in pairwise(row["sent_ns"])],
        "tpot": [(row["sent_ns"][-1] - row["sent_ns"][0]) // (tokens - 1) for row in rows if tokens > 1],
        "e2e": [row["sent_ns"][-1] - row["came_ns"] for row in rows],
        "late": [max(0, late) for row in rows for late in row["late_ns"]],
    }
    truth: dict[str, float] = {"served": len(rows), "tokens": tokens * len(rows)}
    for metric, values in samples.items():
        for percent in (50, 95, 99) if values else ():
            truth[f"{metric}_p{percent}"] = Distribution.of(values).percentile(percent) / 1e6
    return truth


def _summary(
    runs: list[dict[str, Any]], tools: Sequence[str], scenarios: Sequence[Scenario]
) -> dict[str, Any]:
    """Return per tool: the median errors of each scenario, the failures, the processor time."""
    summary: dict[str, Any] = {}
    for tool in tools:
        mine = [run for run in runs if run["tool"] == tool and "failure" not in run]
        per_scenario: dict[str, Any] = {}
        for scenario in scenarios:
            rows = [run for run in mine if run["scenario"] == scenario.name]
            if not rows:
                continue
            names = sorted({name for row in rows for name in row["errors"]}, key=FIGURES.index)
            per_scenario[scenario.name] = {
                "errors": {
                    name: median(row["errors"][name] for row in rows if name in row["errors"])
                    for name in names
                },
                "ttft_p99": _median_or_none([row["figures"].get("ttft_p99") for row in rows]),
                "true_ttft_p99": median(row["truth"]["ttft_p99"] for row in rows),
                "open_loop": scenario.rate is not None,
            }
        idle = [run["cpu_seconds"] for run in mine if run["scenario"] == _ONE.name]
        largest = max(scenarios, key=lambda one: one.output_tokens)
        cpu = [
            1e6 * (run["cpu_seconds"] - median(idle)) / run["tokens"]
            for run in mine
            if run["scenario"] == largest.name and idle
        ]
        summary[tool] = {
            "scenarios": per_scenario,
            "cpu_ms_per_1k_tokens": _median_or_none(cpu),
            "cpu_scenario": largest.name,
            "start_cpu_seconds": _median_or_none(idle),
            "failures": sorted({run["failure"] for run in runs if run["tool"] == tool and "failure" in run}),
        }
    return summary


def _median_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _module(tool: str) -> str:
    return f"benchmarks.loadgen_peers.{TOOLS[tool]}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loadgen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--tools", type=_tools, default=list(TOOLS), metavar="A,B", help=f"of {', '.join(TOOLS)}")
    listed = "; ".join(f"{number} {scenario.name}" for number, scenario in enumerate(SCENARIOS))
    add(
        "--scenarios",
        type=numbers(0, len(SCENARIOS) - 1),
        default=list(range(len(SCENARIOS))),
        metavar="N,N",
        help=listed,
    )
    add("--rounds", type=int, default=3, metavar="N", help="interleaved rounds (default 3)")
    add("--keep", type=Path, metavar="FOLDER", help="keep the output of tools that failed there")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


def _tools(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [name for name in names if name not in TOOLS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; accepted: {', '.join(TOOLS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
