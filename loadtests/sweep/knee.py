"""Where a curve of throughput over load bends: beyond it, more load brings latency and little else."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DEFINITION", "knee"]

DEFINITION = (
    "the measured load at which throughput is farthest above the straight line from the first point to the "
    "highest throughput, both axes scaled to 0..1 (Kneedle: Satopaa et al. 2011, without smoothing)"
)
_FEWEST_POINTS = 3
_LEAST_DISTANCE = 0.1


def knee(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the load of the knee, or None where there are fewer than three loads or the curve is a line.

    Kneedle (Satopaa, Albrecht, Irwin, Raghavan: Finding a "Kneedle" in a Haystack, 2011) scales both axes to
    0..1 and takes the point where ``y - x`` is largest. We have a few points rather than a signal, so there
    is no smoothing, and a knee must be a tenth above the diagonal. Loads far beyond saturation pull it up a
    little, since they stretch the axis.

    Args:
        points: (load, throughput), one per load, in ascending order of load.
    """
    if len(points) < _FEWEST_POINTS:
        return None
    loads, throughputs = [load for load, _ in points], [throughput for _, throughput in points]
    width, height = loads[-1] - loads[0], max(throughputs) - throughputs[0]
    if height <= 0:
        return None
    distances = [
        ((throughput - throughputs[0]) / height - (load - loads[0]) / width, load)
        for load, throughput in points
    ]
    distance, load = max(distances, key=lambda pair: pair[0])
    return load if distance >= _LEAST_DISTANCE else None
