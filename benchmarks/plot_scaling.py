"""How an engine scales, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["plot_scaling"]

_PANELS = (
    ("concurrency", "concurrency", "concurrency"),
    ("prompt_length", "prompt", "prompt, tokens"),
    ("output_length", "output", "output, tokens"),
    ("instances", "instances", "instances in Triton"),
)


def plot_scaling(results: Mapping[str, Any], target: Path) -> None:
    """Draw output tokens/s and the median gap between tokens, one panel per thing that was varied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [panel for panel in _PANELS if results[panel[0]]]
    figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, key, label) in zip(axes, panels, strict=True):
        points = results[name]
        where = [point[key] for point in points]
        axis.plot(where, [point["tokens_per_second"] for point in points], "o-", color="#c2410c")
        axis.set_xlabel(label)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("output tokens/s", color="#c2410c")
        gaps = axis.twinx()
        gaps.plot(where, [point["itl_p50_ms"] for point in points], "s--", color="#64748b")
        gaps.set_ylim(bottom=0)
        gaps.set_ylabel("ITL p50, ms", color="#64748b")
        if len(where) > 2:
            axis.set_xscale("log", base=2)
        axis.set_xticks(where, [str(value) for value in where])
    engine = f"{results['engine']} {results['weights']}"
    figure.suptitle(f"{engine}, {results['machine']['cpu']}, {results['threads']} threads", fontsize=10)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130, metadata={"Software": None})
