"""Where our load generator breaks: its error over streams and token rates, its lateness over request rates.

Against the scripted server of ``benchmarks.loadgen``, which takes its share of the same cores. A point holds
when the median and 95th percentile of TTFT and ITL are within 2 ms or 2% of the server's stamps; a rate holds
when the 99th percentile of lateness is below 10 ms.

  python -m benchmarks.loadgen_surface

Results go to benchmarks/results/loadgen_surface.{json,md}; the last line printed is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.loadgen import scripted_server, served_figures
from benchmarks.loadgen_peers import ours
from benchmarks.loadgen_peers.scenario import Scenario
from benchmarks.machine import machine_facts
from benchmarks.preparation import tell

__all__ = ["main"]

STREAMS = (100, 500, 1000, 2000)
GAPS_MS = (200, 100, 50)
RATES = (50, 100, 200, 300, 500)
_SECONDS = 4
_COMPARED = ("ttft_p50", "ttft_p95", "itl_p50", "itl_p95")


def main() -> int:
    """Run all points; return the exit code."""
    surface = [_point(streams, gap) for gap in GAPS_MS for streams in STREAMS]
    rates = [_rate(rate) for rate in RATES]
    results = {"machine": machine_facts(), "surface": surface, "rates": rates}
    target = Path(__file__).parent / "results" / "loadgen_surface"
    target.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = _page(results)
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    held = [point["streams"] for point in surface if point["holds"]]
    kept = [point["rate"] for point in rates if point["holds"]]
    print(json.dumps({"streams": max(held, default=0), "requests_per_second": max(kept, default=0)}))
    return 0


def _point(streams: int, gap_ms: int) -> dict[str, Any]:
    tokens = 1000 * _SECONDS // gap_ms
    scenario = Scenario("", 200, gap_ms, tokens, streams, 2 * streams, ramp_s=2)
    row: dict[str, Any] = {"streams": streams, "gap_ms": gap_ms, "holds": False}
    try:
        measured, truth = _measure(scenario)
    except PeerFailure as failure:
        return {**row, "failure": str(failure)}
    errors = {name: abs((measured.figures[name] or 0) - truth[name]) for name in _COMPARED}
    row["errors"] = errors
    row["holds"] = all(error <= max(2.0, 0.02 * truth[name]) for name, error in errors.items())
    row["server_itl_p95"] = truth["itl_p95"]
    row["cpu_ms_per_1k_tokens"] = 1e6 * measured.cpu_seconds / truth["tokens"]
    tell(f"{streams} streams, {gap_ms} ms: {'holds' if row['holds'] else 'breaks'}, {errors}")
    return row


def _rate(rate: int) -> dict[str, Any]:
    scenario = Scenario("", 50, 20, 5, 2000, _SECONDS * rate, rate=float(rate))
    row: dict[str, Any] = {"rate": rate, "holds": False}
    try:
        measured, truth = _measure(scenario)
    except PeerFailure as failure:
        return {**row, "failure": str(failure)}
    lateness = measured.figures["lateness_p99"]
    row["lateness_p99_ms"] = lateness
    row["ttft_p95_error_ms"] = abs((measured.figures["ttft_p95"] or 0) - truth["ttft_p95"])
    row["holds"] = lateness is not None and lateness < 10
    tell(f"{rate} requests/s: lateness p99 {lateness} ms")
    return row


def _measure(scenario: Scenario) -> tuple[Any, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder, scripted_server(scenario) as url:
        measured = ours.measure(scenario, url, Path(folder), Path(sys.executable), Path())
        return measured, served_figures(url)


def _page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        "# Where the load generator breaks",
        "",
        f"Made by `python -m benchmarks.loadgen_surface` on {machine['cpu']}, {machine['cores']} cores, "
        "which the scripted server shares. In a cell: the largest error in ms of the median and 95th "
        "percentile of TTFT and ITL; **bold** where it is above 2 ms and 2%.",
        "",
        f"| streams | {' | '.join(f'a token each {gap} ms' for gap in GAPS_MS)} |",
        f"|---|{'---|' * len(GAPS_MS)}",
    ]
    cells = {(point["streams"], point["gap_ms"]): point for point in results["surface"]}
    for streams in STREAMS:
        row = [_cell(cells[streams, gap]) for gap in GAPS_MS]
        lines.append(f"| {streams} | {' | '.join(row)} |")
    lines += ["", "| requests/s, constant | lateness p99, ms | error of TTFT p95, ms |", "|---|---|---|"]
    for point in results["rates"]:
        if "failure" in point:
            lines.append(f"| {point['rate']} | {point['failure']} | |")
        else:
            late = f"{point['lateness_p99_ms']:.1f}"
            late = late if point["holds"] else f"**{late}**"
            lines.append(f"| {point['rate']} | {late} | {point['ttft_p95_error_ms']:.1f} |")
    return "\n".join(lines) + "\n"


def _cell(point: dict[str, Any]) -> str:
    if "failure" in point:
        return f"failed: {point['failure']}"
    worst = f"{max(point['errors'].values()):.1f}"
    return worst if point["holds"] else f"**{worst}**"


if __name__ == "__main__":
    sys.exit(main())
