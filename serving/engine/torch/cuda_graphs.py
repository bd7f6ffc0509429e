"""Decode passes as CUDA graphs, one for each size of batch and context.

A decode pass of few rows is bound by the launches of its kernels; a graph launches them all at
once. Graphs have fixed shapes, so rows and context are rounded up: rows that nobody holds compute a
token at a scratch position behind the last one of their row, which no request ever looks at.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from serving.engine.torch.plan import Plan

__all__ = ["DecodeGraphs", "buckets"]

logger = logging.getLogger(__name__)

_SHORTEST = 256
"""Smallest context that has graphs of its own."""

Forward = Callable[[torch.Tensor, Plan], torch.Tensor]
"""Token ids ``[rows, 1]`` and the plan of the pass -> float32 ``[rows, vocab]``."""


def buckets(smallest: int, largest: int) -> list[int]:
    """Return the powers of two times ``smallest`` below ``largest``, and ``largest``."""
    sizes = []
    size = smallest
    while size < largest:
        sizes.append(size)
        size *= 2
    return [*sizes, largest]


class DecodeGraphs:
    """Decode passes of fixed sizes.

    Args:
        forward: one pass; everything it computes depends on its tensors alone.
        slots: rows of the cache.
        positions: positions of a row; the last one is the scratch position.
        device: where the model is.
    """

    def __init__(self, forward: Forward, slots: int, positions: int, device: torch.device) -> None:
        self._forward = forward
        self._rows = buckets(1, slots)
        self._lengths = buckets(min(_SHORTEST, positions), positions)
        self._scratch = positions - 1
        # What every graph reads: token ids and positions.
        self._inputs = torch.zeros((2, slots, 1), dtype=torch.int64, device=device)
        self._graphs: dict[tuple[int, int], Callable[[], torch.Tensor]] = {}
        self._pool: tuple[int, int] | None = None

    def capture_all(self) -> None:
        """Capture every size, the largest first: the others then fit into its memory.

        Raises:
            RuntimeError: the model computes something that a graph cannot hold.
        """
        for rows in reversed(self._rows):
            for length in reversed(self._lengths):
                self._graphs[rows, length] = self._capture(rows, length)
        logger.info("captured %d CUDA graphs", len(self._graphs))

    def decode(self, token_ids: list[int], positions: list[int]) -> torch.Tensor:
        """Compute one token in each of rows ``0..n-1``; return float32 ``[n, vocab]``.

        The result is overwritten by the next call.
        """
        count = len(token_ids)
        rows = next(size for size in self._rows if size >= count)
        # A row that nobody holds sees its scratch position only if the graph looks that far.
        length = next(size for size in self._lengths if size > max(positions))
        idle = rows - count
        filled = torch.tensor([[*token_ids, *[0] * idle], [*positions, *[self._scratch] * idle]])
        self._inputs[:, :rows].copy_(filled.unsqueeze(2), non_blocking=True)
        return self._graphs[rows, length]()[:count]

    def _pass(self, rows: int, length: int) -> torch.Tensor:
        ids, positions = self._inputs[:, :rows]
        return self._forward(ids, Plan(0, rows, positions, length))

    def _capture(self, rows: int, length: int) -> Callable[[], torch.Tensor]:
        """Return a call that replays the pass of this size and returns its logits."""
        self._inputs[0, :rows] = 0
        self._inputs[1, :rows] = self._scratch
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # lazy initialization must not be captured
                self._pass(rows, length)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._pass(rows, length)
        self._pool = self._pool or graph.pool()

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay
