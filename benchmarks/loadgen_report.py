"""Figures of ``benchmarks.loadgen`` for its last line, and its page."""

from __future__ import annotations

from typing import Any

__all__ = ["page", "ratios"]


def ratios(summary: dict[str, Any]) -> dict[str, float]:
    """Return ``max_error_ms/TOOL`` of the closed loops, and ``cpu_ms_per_1k_tokens/TOOL``."""
    found: dict[str, float] = {}
    for tool, facts in summary.items():
        errors = [
            error
            for scenario in facts["scenarios"].values()
            if not scenario["open_loop"]
            for error in scenario["errors"].values()
        ]
        if errors:
            found[f"max_error_ms/{tool}"] = round(max(errors), 3)
    for tool, facts in summary.items():
        if facts["cpu_ms_per_1k_tokens"] is not None:
            found[f"cpu_ms_per_1k_tokens/{tool}"] = round(facts["cpu_ms_per_1k_tokens"], 2)
    return found


def page(results: dict[str, Any]) -> str:
    """Return the Markdown page."""
    machine, summary = results["machine"], results["summary"]
    tools = list(summary)
    names = list(dict.fromkeys(name for facts in summary.values() for name in facts["scenarios"]))
    pins = [pin for pins in results["versions"].values() for pin in pins]
    lines = [
        "# Load generators, side by side",
        "",
        f"Made by `python -m benchmarks.loadgen` on {machine['cpu']}, {machine['cores']} cores, which the "
        f"server shares; medians of {results['rounds']} rounds. {', '.join(pins)}.",
        "",
        "Largest error in ms of the median and 95th percentile of TTFT, ITL, time per output token and "
        "end-to-end latency, against the stamps of the server (in brackets, of which figure). guidellm has "
        "no ITL of single gaps: its mean per request is held against the time per output token, which aiperf "
        "and plain Locust do not say. ours-generate_stream and ours-grpc are over Triton's streams, all "
        "others over OpenAI's.",
        "",
        f"| scenario | {' | '.join(tools)} |",
        f"|---|{'---|' * len(tools)}",
    ]
    for name in names:
        if all(not facts["scenarios"].get(name, {}).get("open_loop") for facts in summary.values()):
            worst = [_worst(summary[tool]["scenarios"].get(name)) for tool in tools]
            lines.append(f"| {name} | {' | '.join(worst)} |")
    cpu = [_number(summary[tool]["cpu_ms_per_1k_tokens"]) for tool in tools]
    start = [_number(summary[tool]["start_cpu_seconds"]) for tool in tools]
    lines += [
        f"| **CPU ms per 1,000 tokens** ({summary[tools[0]]['cpu_scenario']}) | {' | '.join(cpu)} |",
        f"| CPU s of a run with one request | {' | '.join(start)} |",
        "",
    ]
    for name in names:
        cells: list[dict[str, Any] | None] = [summary[tool]["scenarios"].get(name) for tool in tools]
        if any(cell and cell["open_loop"] for cell in cells):
            said = [
                f"{tool} {cell['ttft_p99']:.0f}" if cell and cell["ttft_p99"] is not None else f"{tool} -"
                for tool, cell in zip(tools, cells, strict=True)
            ]
            true = next(cell["true_ttft_p99"] for cell in cells if cell)
            lines += [
                f"{name}: the 99th percentile of TTFT that a client of a constant rate sees is {true:.0f} ms "
                f"by the stamps of the first tool's run; each says: {', '.join(said)}.",
                "",
            ]
    for run in results["runs"]:
        if run.get("answered", 0) != run.get("served", 0):
            lines += [
                f"{run['tool']}, {run['scenario']}: it counts {run['answered']} answers, the server "
                f"{run['served']}.",
                "",
            ]
    for tool in tools:
        lines += [f"{tool} failed: {failure}" for failure in summary[tool]["failures"]]
    return "\n".join(lines) + "\n"


def _worst(scenario: dict[str, Any] | None) -> str:
    errors: dict[str, float] = scenario["errors"] if scenario else {}
    if not errors:
        return "-"
    name = max(errors, key=errors.__getitem__)
    return f"{errors[name]:.1f} ({name.replace('_', ' ')})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
