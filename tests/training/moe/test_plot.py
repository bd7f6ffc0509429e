"""``experts.png``: each layer has its own load, entropy and drop rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.moe.plot import draw_experts, plot_experts


def row(step: int, *layers: tuple[list[float], float, float]) -> dict[str, Any]:
    found = {
        f"model.layers.{number}.mlp.gate": {"load": load, "entropy": entropy, "dropped": dropped}
        for number, (load, entropy, dropped) in enumerate(layers, start=1)
    }
    return {"step": step, "routers_trainable": True, "layers": found}


ROWS = [
    row(5, ([1.0, 1.0], 1.0, 0.0), ([1.5, 0.5], 0.8, 0.25)),
    row(10, ([0.9, 1.1], 0.99, 0.05), ([2.0, 0.0], 0.0, 0.5)),
]


def test_layers_are_drawn_one_by_one() -> None:
    figure = draw_experts(ROWS)
    drawn = {axes.get_title(): axes for axes in figure.axes if axes.images}
    arrays = {title: axes.images[0].get_array().tolist() for title, axes in drawn.items()}
    assert arrays == {
        "load at step 10": [[0.9, 1.1], [2.0, 0.0]],
        "entropy": [[1.0, 0.99], [0.8, 0.0]],
        "dropped": [[0.0, 0.05], [0.25, 0.5]],
    }
    assert [label.get_text() for label in drawn["load at step 10"].get_yticklabels()] == ["1", "2"]
    assert list(drawn["entropy"].images[0].get_extent()) == [2.5, 12.5, 1.5, -0.5]


def test_one_row_is_enough(tmp_path: Path) -> None:
    plot_experts(ROWS[:1], tmp_path / "experts.png")
    assert (tmp_path / "experts.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["experts.png"]
