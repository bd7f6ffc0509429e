"""Where our load generator breaks: its error over streams and token rates, its lateness over request rates.

Against the scripted server of ``benchmarks.loadgen``, which takes its share of the same cores. A point holds
when the median and 95th percentile of TTFT and ITL are within 2 ms or 2% of the server's stamps; a rate holds
when the 99th percentile of lateness is below 10 ms. The server has limits too: it says how late it sent its
tokens, and where that is more than 5 ms it was full itself.

  python -m benchmarks.loadgen_surface
  python -m benchmarks.loadgen_surface --protocol grpc

Results go to benchmarks/results/loadgen_surface.{json,md} (of another protocol than OpenAI's chat,
loadgen_surface_PROTOCOL); the last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.loadgen import scripted_server, served_figures
from benchmarks.loadgen_peers import ours
from benchmarks.loadgen_peers.scenario import Scenario
from benchmarks.machine import machine_facts
from benchmarks.preparation import tell
from loadtests.config import LoadTestConfig

__all__ = ["main"]

STREAMS = (20, 50, 100, 200, 500, 1000, 2000)
GAPS_MS = (200, 100, 50, 20, 10, 5)
LEAST_TOKENS_PER_S, MOST_TOKENS_PER_S = 400, 40_000
"""Of the points of the grid that are measured: below nothing can break, above all did long before."""
RATES = (50, 100, 200, 300, 500)
_SECONDS = 4
_FULL_MS = 5.0
PROTOCOLS = ("openai_chat", "generate_stream", "grpc")
_COMPARED = ("ttft_p50", "ttft_p95", "itl_p50", "itl_p95")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all points; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadgen_surface", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--protocol", choices=PROTOCOLS, default=PROTOCOLS[0])
    parser.add_argument("--streams", type=_numbers, default=STREAMS, metavar="N,N")
    parser.add_argument("--gaps", type=_numbers, default=GAPS_MS, metavar="MS,MS")
    parser.add_argument("--rates", type=_numbers, default=RATES, metavar="N,N")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", metavar="FOLDER")
    options = parser.parse_args(arguments)
    protocol = options.protocol
    surface = [
        _point(streams, gap, protocol)
        for gap in options.gaps
        for streams in options.streams
        if LEAST_TOKENS_PER_S <= 1000 * streams / gap <= MOST_TOKENS_PER_S
    ]
    rates = [_rate(rate, protocol) for rate in options.rates]
    results = {"machine": machine_facts(), "protocol": protocol, "surface": surface, "rates": rates}
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "_".join(("loadgen_surface", *([protocol] if protocol != PROTOCOLS[0] else [])))
    target.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = _page(results)
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    held = [point["streams"] for point in surface if point["holds"]]
    kept = [point["rate"] for point in rates if point["holds"]]
    print(json.dumps({"streams": max(held, default=0), "requests_per_second": max(kept, default=0)}))
    return 0


def _point(streams: int, gap_ms: int, protocol: str) -> dict[str, Any]:
    tokens = 1000 * _SECONDS // gap_ms
    scenario = Scenario("", 200, gap_ms, tokens, streams, 2 * streams, ramp_s=2, protocol=protocol)
    row: dict[str, Any] = {"streams": streams, "gap_ms": gap_ms, "holds": False}
    try:
        measured, truth = _measure(scenario)
    except PeerFailure as failure:
        return {**row, "failure": str(failure)}
    errors = {name: abs((measured.figures[name] or 0) - truth[name]) for name in _COMPARED}
    row["errors"] = errors
    row["holds"] = all(error <= max(2.0, 0.02 * truth[name]) for name, error in errors.items())
    row["server_itl_p95"] = truth["itl_p95"]
    row["server_late_p95_ms"], row["loop_lag_p95_ms"] = truth["late_p95"], measured.figures["loop_lag_p95"]
    row["flagged"] = (row["loop_lag_p95_ms"] or 0) * 1e6 > LoadTestConfig().max_loop_lag_p95_ns
    row["cpu_ms_per_1k_tokens"] = 1e6 * measured.cpu_seconds / truth["tokens"]
    tell(
        f"{streams} streams, {gap_ms} ms: {'holds' if row['holds'] else 'breaks'}, {errors}, "
        f"loop lag {row['loop_lag_p95_ms']} ms, server {row['server_late_p95_ms']:.1f} ms late"
    )
    return row


def _rate(rate: int, protocol: str) -> dict[str, Any]:
    scenario = Scenario("", 50, 20, 5, 2000, _SECONDS * rate, rate=float(rate), protocol=protocol)
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
    with tempfile.TemporaryDirectory() as folder, scripted_server(scenario) as (url, truth_url):
        measured = ours.measure(scenario, url, Path(folder), Path(sys.executable), Path())
        return measured, served_figures(truth_url)


def _page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    gaps = list(dict.fromkeys(point["gap_ms"] for point in results["surface"]))
    lines = [
        "# Where the load generator breaks",
        "",
        f"Made by `python -m benchmarks.loadgen_surface` on {machine['cpu']}, {machine['cores']} cores, "
        f"which the scripted server shares, over `{results['protocol']}`. In a cell: the largest error in ms "
        "of the median and 95th percentile of TTFT and ITL; **bold** where it is above 2 ms and 2%. A cell "
        "with a minus: the server was full itself, and sent more than 5 % of its tokens that many ms late. A "
        "cell with an exclamation mark: the run says itself that it is invalid (--max-loop-lag-p95), once it "
        "lasts ten seconds.",
        "",
        f"| streams | {' | '.join(f'a token each {gap} ms' for gap in gaps)} |",
        f"|---|{'---|' * len(gaps)}",
    ]
    cells = {(point["streams"], point["gap_ms"]): point for point in results["surface"]}
    for streams in sorted({point["streams"] for point in results["surface"]}):
        row = [_cell(cells.get((streams, gap))) for gap in gaps]
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


def _cell(point: dict[str, Any] | None) -> str:
    if point is None:
        return ""
    if "failure" in point:
        return f"failed: {point['failure']}"
    worst = f"{max(point['errors'].values()):.1f}"
    cell = worst if point["holds"] else f"**{worst}**"
    late = point["server_late_p95_ms"]
    return cell + (" !" if point["flagged"] else "") + (f" (server -{late:.0f})" if late > _FULL_MS else "")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


if __name__ == "__main__":
    sys.exit(main())
