"""The results as a page of Markdown: machine, floors, workload, one table, what failed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.design_figures import FLOORS

__all__ = ["render_report"]


def render_report(results: Mapping[str, Any], plot: str = "serving.png") -> str:
    """Return the page for the results of ``serving.py``; ``plot`` is the picture's file name."""
    peers, columns = results["peers"], results["concurrency"]
    parts = [
        "# Serving, side by side",
        "Made by `make bench-serving`; every figure is a median over the rounds. Ours are in bold.",
        _machine(results),
        _workload(results),
        f"![output tokens/s]({plot})",
        "## Output tokens per second",
        _throughput(peers, columns),
        "## Latency",
        "Milliseconds, p50 / p95 for the time to first token (TTFT), p50 / p99 for the gap between two "
        "responses of a stream (ITL).",
        _latency(peers, columns),
        "## Notes",
        *_notes(peers),
    ]
    if results["design"]["judged"]:
        lines = results["design"]["shortfalls"]
        verdict = "\n".join(["**This run does not count:**", "", *(f"- {x}" for x in lines)])
        parts += ["## Peers below 0.9 of the design's figures", verdict if lines else "None."]
        parts += ["### What each reached of its figure", _shares(results["design"], columns)]
    return "\n\n".join(parts) + "\n"


def _machine(results: Mapping[str, Any]) -> str:
    machine, floors = results["machine"], results["floors"]
    kind = (
        "This is the kind of machine of the design's table."
        if results["design"]["machine_matches"]
        else "This is **another kind of machine** than that of the design's table (2 AMD cores with "
        "avx512_bf16), so the figures stand for themselves; what counts is the order and the ratios."
    )
    return (
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['cpu_flags'])}), "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, "
        f"Python {machine['python']}. {kind}\n\n"
        f"Floors, measured: reads {floors['read_bytes_per_second'] / 1e9:.1f} GB/s, multiplies "
        f"{floors['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s in {results['precision']}. So at c=1 at most "
        + ", ".join(f"{value:.0f} tokens/s in {name}" for name, value in results["ceilings"]["read"].items())
        + f"; and at any concurrency at most {results['ceilings']['matmul']:.0f} tokens/s in "
        f"{results['precision']}, before prefill and attention."
    )


def _workload(results: Mapping[str, Any]) -> str:
    work = results["workload"]
    return (
        f"SmolLM2-135M-Instruct, the same weights for all. {work['requests']} requests (hash "
        f"{work['fingerprint']}), prompts of 16 to 128 tokens, output lengths exponential with mean 48, "
        "clipped to 4 to 192 and forced; greedy; closed loop; "
        f"{results['rounds']} interleaved rounds; {results['threads']} threads."
    )


def _throughput(peers: Mapping[str, Any], columns: Sequence[int]) -> str:
    header = [
        "engine",
        *(f"c={column}" for column in columns),
        "equal texts / tokens",
        "peak RSS, MB",
        "start, s",
    ]
    rows = []
    for key, facts in _ordered(peers):
        cells = facts["concurrency"]
        if not cells:
            rows.append([_name(key, facts), *("-" for _ in columns), f"cannot run here: {facts['failed']}"])
            continue
        texts, tokens = (
            min(cell[name] for cell in cells.values()) for name in ("text_equal", "tokens_equal")
        )
        rows.append(
            [
                _name(key, facts),
                *(_cell(cells, column, "{tokens_per_second:.0f}") for column in columns),
                f"{100 * texts:.0f}% / {100 * tokens:.0f}%",
                f"{facts['peak_rss_bytes'] / 1e6:.0f}",
                f"{facts['start_seconds']:.1f}",
            ]
        )
    return _table(header, rows)


def _latency(peers: Mapping[str, Any], columns: Sequence[int]) -> str:
    header = ["engine"]
    for column in columns:
        header += [f"TTFT c={column}", f"ITL c={column}"]
    rows = []
    for key, facts in _ordered(peers):
        if not facts["concurrency"]:
            continue
        row = [_name(key, facts)]
        for column in columns:
            row.append(_cell(facts["concurrency"], column, "{ttft_p50_ms:.0f} / {ttft_p95_ms:.0f}"))
            row.append(_cell(facts["concurrency"], column, "{itl_p50_ms:.1f} / {itl_p99_ms:.1f}"))
        rows.append(row)
    return _table(header, rows)


def _shares(design: Mapping[str, Any], columns: Sequence[int]) -> str:
    """Peers and the machine itself against the design's: a slow machine is told from a badly set-up peer."""
    header = ["peer", *(f"c={column}" for column in columns)]
    rows = [
        [key, *(f"{found[str(column)]:.2f}" if str(column) in found else "-" for column in columns)]
        for key, found in design["peer_shares"].items()
    ]
    table = _table(header, rows)
    floors = design["floor_shares"]
    if not floors:
        return table
    reads, multiplies = (FLOORS[name] / 1e9 for name in ("read_bytes_per_second", "matmul_flops_per_second"))
    return (
        f"{table}\n\nThis machine itself reads memory at {floors['read_bytes_per_second']:.2f} of the "
        f"design's {reads:.0f} GB/s and multiplies in bf16 at {floors['matmul_flops_per_second']:.2f} of its "
        f"{multiplies:.0f} GFLOP/s. A peer whose share is about that is held up by the machine; one far "
        "below it may be set up badly."
    )


def _notes(peers: Mapping[str, Any]) -> list[str]:
    lines = [
        "- Equal texts / tokens: share of requests whose tokens are the checkpoint's own greedy choice in "
        "fp32, and of tokens before a text leaves it; the lowest over the concurrencies.",
        "- Peak RSS: the peaks of the server's processes added up, the measuring process left out where "
        "there is a server.",
    ]
    for key, facts in peers.items():
        flags = ", ".join(f"{name} `{value}`" for name, value in facts["flags"].items())
        line = f"- {key}: {facts['note']}" + (f"; {flags}" if flags else "")
        lines.append(line + (f". Failed: {facts['failed']}" if facts["failed"] else ""))
    return ["\n".join(lines)]


def _ordered(peers: Mapping[str, Any]) -> list[tuple[str, Any]]:
    def speed(entry: tuple[str, Any]) -> float:
        cells = entry[1]["concurrency"].values()
        return max((cell["tokens_per_second"] for cell in cells), default=-1.0)

    return sorted(peers.items(), key=speed)


def _name(key: str, facts: Mapping[str, Any]) -> str:
    return f"**{key}**" if facts["ours"] else key


def _cell(cells: Mapping[str, Any], column: int, template: str) -> str:
    cell = cells.get(str(column))
    return template.format(**cell) if cell else "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        filled = [*row, *[""] * (len(header) - len(row))]
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in filled) + " |")
    return "\n".join(lines)
