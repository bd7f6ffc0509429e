"""What one decode step costs: a fixed part, a part per row, and a part per position of context.

    seconds = fixed + per_row * rows + per_context * (positions of all rows together)

The fixed part is bounded below by reading the weights, the part per row by the multiplications of one
token, the part per position by reading its K and V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from benchmarks.traces import Trace

__all__ = ["Observation", "StepTime", "fit_step_time", "floor_of", "observe_wave"]

_STEPS = 8


@dataclass(frozen=True)
class Observation:
    """Some decode steps of one batch."""

    rows: int
    """Requests in the batch."""

    positions: float
    """Positions of context, all rows together."""

    seconds: float
    """Time of one step."""


@dataclass(frozen=True)
class StepTime:
    """The model's parts, in seconds, and how well they fit."""

    fixed: float
    per_row: float
    per_context: float

    median_error: float = 0.0
    """How far the model is from the steps it was fitted to: median of |model / measured - 1|."""

    def seconds(self, rows: int, positions: float) -> float:
        """Return the time of one step."""
        return self.fixed + self.per_row * rows + self.per_context * positions


def observe_wave(traces: Sequence[Trace], prompt_length: int) -> list[Observation]:
    """Return what equal requests, sent together, show of the time of a step.

    Only what comes after the last of them got its first token counts: then nobody is in prefill. The first
    may have ended by then, so a batch is those that have not.

    Args:
        traces: of one wave; equal prompts.
        prompt_length: tokens of each prompt.
    """
    begin = max(trace.arrivals[0][0] for trace in traces)
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for trace in traces:
        for (before, _), (moment, count) in pairwise(trace.arrivals):
            if before < begin:
                continue
            running = [one for one in traces if one.arrivals[-1][0] >= moment]
            positions = sum(prompt_length + _tokens_until(one, before) for one in running)
            key = len(running), positions // (_STEPS * len(running))
            found.setdefault(key, []).append((positions, (moment - before) / count))
    return [
        Observation(rows, fmean(position for position, _ in gaps), median(gap for _, gap in gaps))
        for (rows, _), gaps in sorted(found.items())
    ]


def _tokens_until(trace: Trace, moment: float) -> int:
    return sum(count for arrival, count in trace.arrivals if arrival <= moment)


def fit_step_time(observations: Sequence[Observation]) -> StepTime:
    """Fit the model by least squares; each part is at least 0.

    Relative errors are minimized, so that short steps count as much as long ones.

    Raises:
        ValueError: fewer than three observations.
    """
    import numpy as np

    if len(observations) < 3:
        raise ValueError(f"{len(observations)} observations; at least 3 are needed")
    seconds = np.array([one.seconds for one in observations])
    design = np.array([[1.0, one.rows, one.positions] for one in observations])
    parts = np.zeros(3)
    free = [0, 1, 2]
    while free:
        solution = np.linalg.lstsq(design[:, free] / seconds[:, None], np.ones(len(seconds)), rcond=None)[0]
        if (solution >= 0).all():
            parts[free] = solution
            break
        # A part below zero is noise around zero: leave it out and fit the others again.
        free.pop(int(solution.argmin()))
    errors = np.abs(design @ parts / seconds - 1)
    return StepTime(float(parts[0]), float(parts[1]), float(parts[2]), float(np.median(errors)))


def floor_of(
    parameters: int, bytes_per_weight: float, kv_bytes: float, read_speed: float, multiply_speed: float
) -> StepTime:
    """Return the least each part can cost on a machine.

    Args:
        parameters: weights of the model.
        bytes_per_weight: as they lie in memory.
        kv_bytes: K and V of one position, all layers.
        read_speed: bytes per second.
        multiply_speed: floating-point operations per second.
    """
    return StepTime(
        fixed=parameters * bytes_per_weight / read_speed,
        per_row=2 * parameters / multiply_speed,
        per_context=kv_bytes / read_speed,
    )
