"""The runs as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loadtests.durations import format_duration
from loadtests.history.runs import Run

__all__ = ["figures", "history_table"]

_MISSING = "–"
HEADER = ("tokens/s", "TTFT p50", "p95", "ITL p99", "e2e p95", "failed", "verdict")


def history_table(runs: Sequence[Run], folder: Path) -> str:
    """Return a line per run, oldest first, under a heading per load: only within one are runs comparable."""
    names = {run.path: _name(run, folder) for run in runs}
    width = max(len("run"), *(len(name) for name in names.values()))
    rows = [figures(run) for run in runs]
    widths = [max(len(text) for text in column) for column in zip(HEADER, *rows, strict=True)]
    cells = {run.path: row for run, row in zip(runs, rows, strict=True)}

    def line(name: str, started: str, texts: Sequence[str]) -> str:
        columns = "  ".join(text.rjust(wide) for text, wide in zip(texts, widths, strict=True))
        return f"{name:{width}}  {started:16}  {columns}".rstrip()

    lines: list[str] = []
    for model, load in dict.fromkeys((run.model, run.load) for run in runs):
        lines += ["", f"{model}: {load}", line("run", "started (UTC)", HEADER)]
        lines += [
            line(names[run.path], run.started[:16].replace("T", " "), cells[run.path])
            for run in runs
            if (run.model, run.load) == (model, load)
        ]
    return "\n".join(lines[1:])


def figures(run: Run) -> tuple[str, ...]:
    """Return the main figures as texts, in the order of ``HEADER``."""

    def duration(value: int | None) -> str:
        return _MISSING if value is None else format_duration(value)

    tokens = run.output_tokens_per_second
    return (
        _MISSING if tokens is None else f"{tokens:,.1f}",
        duration(run.ttft_p50),
        duration(run.ttft_p95),
        duration(run.itl_p99),
        duration(run.e2e_p95),
        f"{run.failed} of {run.answered + run.failed}",
        run.outcome,
    )


def _name(run: Run, folder: Path) -> str:
    return str(run.path.relative_to(folder)) if run.path != folder else run.path.name
