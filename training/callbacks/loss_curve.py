"""Keeps ``loss.png`` up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.callbacks.drawing import Drawing
from training.metrics import rows_from_history
from training.plot import plot_loss

__all__ = ["LossCurve"]


class LossCurve(Drawing):
    """The curve of training and evaluation loss."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def draw(self, history: list[dict[str, Any]]) -> None:
        """Draw the curve, once there is a point."""
        if rows := rows_from_history(history):
            plot_loss(rows, self.path)
