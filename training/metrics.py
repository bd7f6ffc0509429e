"""``metrics.jsonl``: one row per logged step of a run.

Keys: ``step``, ``epoch``, ``loss`` (mean over the trained tokens of the step; with a
load-balance loss, its coefficient times that on top, which ``eval_loss`` may not have), ``learning_rate``,
``grad_norm`` (before clipping), ``tokens_per_second`` (tokens that are not padding), and, on the steps
that were evaluated, ``eval_loss`` (mean over the trained tokens of all evaluation rows). These losses are in
nats per token. For a mixture of experts also ``routers_trainable`` and ``load_balance_loss`` (without
its coefficient, 1 where the load is even). With ``ewc.from_run`` also ``ewc_penalty``, with its weight: it is
minimised beside ``loss``, not in it. What was not measured at a step is absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["KEYS", "read_metrics", "rows_from_history", "to_line"]

KEYS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "eval_loss",
    "routers_trainable",
    "load_balance_loss",
    "ewc_penalty",
)


def rows_from_history(history: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Turn the Trainer's ``log_history`` into rows, one per step, in order; summaries are left out."""
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        values = {key: entry[key] for key in KEYS if key in entry}
        if "loss" not in values and "eval_loss" not in values:
            continue
        step = int(entry["step"])
        row = rows.setdefault(step, {"step": step})
        if "epoch" in entry:
            row["epoch"] = entry["epoch"]
        row.update(values)
    return [rows[step] for step in sorted(rows)]


def to_line(row: Mapping[str, float]) -> str:
    """Return one row as a line of JSON; a value that is not finite becomes null, which JSON can hold."""
    finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a ``metrics.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
