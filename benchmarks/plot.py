"""The results as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["plot_serving"]

_OURS, _THEIRS = "#c2410c", "#64748b"


def plot_serving(results: Mapping[str, Any], target: Path) -> None:
    """Draw output tokens/s of every peer as bars, one panel per concurrency, ours in colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    peers = {key: facts for key, facts in results["peers"].items() if facts["concurrency"]}
    columns = results["concurrency"]
    figure = Figure(figsize=(4.2 * len(columns) + 1.5, 0.34 * len(peers) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    last = str(columns[-1])
    order = sorted(peers, key=lambda key: _speed(peers[key], last))
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, column in zip(axes, columns, strict=True):
        speeds = [_speed(peers[key], str(column)) for key in order]
        colours = [_OURS if peers[key]["ours"] else _THEIRS for key in order]
        bars = axis.barh(order, speeds, color=colours)
        axis.bar_label(bars, [f"{speed:.0f}" if speed else "" for speed in speeds], padding=3, fontsize=8)
        axis.margins(x=0.15)
        axis.set_title(f"concurrency {column}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.supxlabel(
        f"output tokens/s, {results['machine']['cpu']}, {results['threads']} threads", fontsize=9
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130, metadata={"Software": None})


def _speed(facts: Mapping[str, Any], column: str) -> float:
    cell = facts["concurrency"].get(column)
    return float(cell["tokens_per_second"]) if cell else 0.0
