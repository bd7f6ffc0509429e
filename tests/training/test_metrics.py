"""Rows of metrics.jsonl, and the picture of them."""

from __future__ import annotations

import json
from pathlib import Path

from training.metrics import rows_from_history, to_line
from training.plot import plot_loss

HISTORY = [
    {
        "step": 1,
        "epoch": 0.5,
        "loss": 3.0,
        "learning_rate": 1e-4,
        "grad_norm": 0.5,
        "tokens_per_second": 10.0,
    },
    {
        "step": 2,
        "epoch": 1.0,
        "loss": 2.0,
        "learning_rate": 2e-4,
        "grad_norm": 0.4,
        "tokens_per_second": 11.0,
    },
    {"step": 2, "epoch": 1.0, "eval_loss": 2.5, "eval_runtime": 1.0},
    {"step": 2, "epoch": 1.0, "train_loss": 2.5, "train_runtime": 9.0},
]


def test_a_step_is_one_row_with_its_evaluation() -> None:
    rows = rows_from_history(HISTORY)
    assert [row["step"] for row in rows] == [1, 2]
    assert "eval_loss" not in rows[0]
    assert (rows[1]["loss"], rows[1]["eval_loss"]) == (2.0, 2.5)
    assert "train_loss" not in rows[1]


def test_a_value_that_is_not_finite_is_null() -> None:
    assert json.loads(to_line({"step": 1, "grad_norm": float("nan")})) == {"step": 1, "grad_norm": None}


def test_the_loss_curve_is_a_png(tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = tmp_path / "loss.png"
    plot_loss(rows_from_history(HISTORY), path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = imread(path)
    # both curves are there: the blue of training and the red of evaluation
    reds = (picture[..., 0] > 0.8) & (picture[..., 2] < 0.2)
    blues = (picture[..., 2] > 0.8) & (picture[..., 0] < 0.2)
    assert reds.any()
    assert blues.any()
    assert [entry.name for entry in tmp_path.iterdir()] == ["loss.png"]
