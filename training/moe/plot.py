"""What the experts of each layer got, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["plot_experts"]


def plot_experts(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the load of the last row, and entropy and drop rate over the steps; write it in one step.

    Args:
        rows: of ``experts.jsonl``, at least one.
        path: PNG file.
    """
    layers = list(rows[-1]["layers"])
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    load_axes, line_axes = figure.subplots(1, 2)
    loads = [rows[-1]["layers"][name]["load"] for name in layers]
    picture = load_axes.imshow(loads, aspect="auto", cmap="viridis", vmin=0)
    figure.colorbar(picture, ax=load_axes, label="load, 1 is even")
    load_axes.set(xlabel="expert", ylabel="layer", title=f"load at step {rows[-1]['step']}")
    load_axes.set_yticks(range(len(layers)), [_layer_number(name) for name in layers])
    load_axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    steps = [row["step"] for row in rows]
    for key, color in (("entropy", "#2563eb"), ("dropped", "#dc2626")):
        means = [sum(row["layers"][name][key] for name in layers) / len(layers) for row in rows]
        line_axes.plot(steps, means, color=color, label=f"{key}, mean of layers")
    line_axes.set(xlabel="step", ylim=(-0.02, 1.02))
    line_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    line_axes.grid(alpha=0.25)
    line_axes.spines[["top", "right"]].set_visible(False)
    line_axes.legend(frameon=False)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def _layer_number(name: str) -> str:
    return next((part for part in name.split(".") if part.isdigit()), name)
