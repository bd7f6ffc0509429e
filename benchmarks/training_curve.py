"""Do all trainers learn the same? Their losses, step by step, from the same adapter.

Trainers put other rows together in a step, so losses of the speed runs cannot be compared one by one. Here a
step is all rows, padded or packed, and each run starts from one adapter: then what order rows have, and how
an adapter is drawn, make no difference, and the curves must be one but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_facts
from benchmarks.preparation import tell
from benchmarks.training_peers.job import Job

__all__ = ["TOLERANCE", "largest_difference", "measure_curves"]

TOLERANCE = 0.01
"""How far apart losses of a step may be, as a share of the smallest: bf16 keeps 8 bits, 0.4%."""

_ALL = 64  # passes of a step at most: more than any run here has, so that an epoch is a step
_RATE = 1e-3  # the adapter's second matrix starts at zero; at less there is no curve to speak of


def measure_curves(
    jobs: Mapping[str, tuple[str, Job]],
    train: Callable[[str, Job], Mapping[str, Any]],
    steps: int,
    folder: Path,
) -> dict[str, Any]:
    """Train each peer for ``steps`` steps, and return its losses and how far they are apart.

    Args:
        jobs: peer -> (module, its job of the speed runs).
        train: runs a module's job and returns what it answers.
        folder: for what runs write.
    """
    some = next(iter(jobs.values()))[1]
    # An adapter as our trainer draws it: one step at a rate that moves nothing.
    drawn = folder / "drawn"
    first = replace(some, packing=False, batch=8, accumulation=_ALL, epochs=1, learning_rate=1e-30)
    train("ours", replace(first, output=str(drawn)))
    losses: dict[str, list[float]] = {}
    for name, (module, job) in jobs.items():
        changes: dict[str, Any] = {"accumulation": _ALL, "epochs": steps, "learning_rate": _RATE}
        output = str(folder / f"curve-{name}")
        result = train(module, replace(job, **changes, adapter=str(drawn / "adapter"), output=output))
        losses[name] = [round(float(loss), 4) for loss in result["losses"]]
        tell(f"curve {name}: {', '.join(f'{loss:.4f}' for loss in losses[name])}")
    return {
        "cpu": machine_facts()["cpu"],
        "rows": len(some.rows),
        "steps": steps,
        "learning_rate": _RATE,
        "tolerance": TOLERANCE,
        "largest_difference": round(largest_difference(list(losses.values())), 5),
        "losses": losses,
    }


def largest_difference(curves: Sequence[Sequence[float]]) -> float:
    """Return how far the losses of one step are apart at most, as a share of the smallest of that step.

    Raises:
        ValueError: the curves have not equally many steps.
    """
    return max((max(step) - min(step)) / min(step) for step in zip(*curves, strict=True))
