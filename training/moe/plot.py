"""What the experts of each layer got, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["draw_experts", "plot_experts"]


def plot_experts(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the rows into a file, in one step.

    Args:
        rows: of ``experts.jsonl``, at least one.
        path: PNG file.
    """
    figure = draw_experts(rows)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def draw_experts(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw, layer by layer, the load of the last row, and entropy and drop rate over the steps."""
    layers = list(rows[-1]["layers"])
    figure = Figure(figsize=(13, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    load_axes, *axes_of_steps = figure.subplots(1, 3, sharey=True)
    loads = [rows[-1]["layers"][name]["load"] for name in layers]
    picture = load_axes.imshow(loads, aspect="auto", cmap="viridis", vmin=0)
    figure.colorbar(picture, ax=load_axes, label="load, 1 is even")
    load_axes.set(xlabel="expert", ylabel="layer", title=f"load at step {rows[-1]['step']}")
    load_axes.set_yticks(range(len(layers)), [_layer_number(name) for name in layers])
    load_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, key, label in zip(
        axes_of_steps, ("entropy", "dropped"), ("entropy, 1 is even", "share dropped"), strict=True
    ):
        _draw_steps(figure, axes, rows, layers, key, label)
    return figure


def _draw_steps(
    figure: Figure, axes: Axes, rows: Sequence[Mapping[str, Any]], layers: list[str], key: str, label: str
) -> None:
    values = [[row["layers"][name][key] for row in rows] for name in layers]
    steps = [row["step"] for row in rows]
    # Rows are logged at equal distances, but for the last; half of one is left and right of its step.
    half = (steps[-1] - steps[0]) / max(1, len(steps) - 1) / 2 or 0.5
    extent = (steps[0] - half, steps[-1] + half, len(layers) - 0.5, -0.5)
    # Dropped shares are small: their colours end at what there is, an even load's at 1.
    top = 1.0 if key == "entropy" else max(0.01, *(max(line) for line in values))
    picture = axes.imshow(values, aspect="auto", cmap="magma", vmin=0, vmax=top, extent=extent)
    figure.colorbar(picture, ax=axes, label=label)
    axes.set(xlabel="step", title=key)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _layer_number(name: str) -> str:
    return next((part for part in name.split(".") if part.isdigit()), name)
