"""Which rows and positions of the slot cache a forward pass computes, and how it writes them.

A pass is a chunk of one prompt (``Plan.prefill``), one token in each of the first rows
(``Plan.decode``), or several of these behind each other (``Plan.mixed``). What all layers need is
computed once here.
"""

from __future__ import annotations

from functools import cached_property

import torch

__all__ = ["Plan"]

_SEGMENT_ROWS = 8
"""Rows that attend together when rows differ in length; fewer rows cost more in launches than in padding."""


class Plan:
    """Rows, positions and lengths of one forward pass.

    Args:
        first_row: first row of the cache; the rows of a pass are contiguous.
        last_row: the row after the last.
        positions: int64 ``[rows, query]``, position of each new token in its row.
        length: positions the pass may look at: the largest position plus one.
        start: position of the first token of a prompt's chunk; None in a decode pass.
        segments: ``(first row, row after the last, length)`` of rows that attend together, counted
            from ``first_row``; empty where all rows attend over ``length``.
        sees_all: whether a token is known to look at all positions up to its own, in every layer.
        parts: the plans of which this one is made up; empty where it is not.
    """

    def __init__(
        self,
        first_row: int,
        last_row: int,
        positions: torch.Tensor,
        length: int,
        *,
        start: int | None = None,
        segments: tuple[tuple[int, int, int], ...] = (),
        sees_all: bool = False,
        parts: tuple[Plan, ...] = (),
    ) -> None:
        self.first_row = first_row
        self.last_row = last_row
        self.positions = positions
        self.length = length
        self.query: int = positions.shape[1]
        self.segments = segments
        self.start = start
        self.sees_all = sees_all
        self.parts = parts
        self.mask: torch.Tensor | None = None
        """Additive ``[rows, 1, query, length]``, where all layers have the same."""
        self._written: dict[tuple[int, int, torch.device], torch.Tensor] = {}
        self._places: tuple[torch.Tensor, torch.Tensor] | None = None
        self._rotation: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def is_prefill(self) -> bool:
        """Whether this is a chunk of one prompt."""
        return self.start is not None

    @cached_property
    def lengths(self) -> torch.Tensor | None:
        """Positions that each row has, int64 ``[rows]``, in a decode pass that sees them all; else None."""
        if self.is_prefill or self.parts or not self.sees_all:
            return None
        return self.positions[:, 0] + 1

    @classmethod
    def empty(cls) -> Plan:
        """Return the plan of a cache that has seen no pass."""
        return cls(0, 0, torch.zeros((0, 0), dtype=torch.int64), 0)

    @classmethod
    def prefill(cls, row: int, positions: torch.Tensor, start: int, *, sees_all: bool = False) -> Plan:
        """Return the plan of a chunk of one prompt; ``positions`` is int64 ``[1, query]``."""
        return cls(row, row + 1, positions, start + positions.shape[1], start=start, sees_all=sees_all)

    @classmethod
    def decode(cls, positions: torch.Tensor, lengths: list[int], *, sees_all: bool = False) -> Plan:
        """Return the plan of one token in each row.

        Args:
            positions: int64 ``[rows, 1]``.
            lengths: of the rows, this token included.
            sees_all: see ``Plan``.
        """
        segments = _segments(lengths)
        return cls(0, len(lengths), positions, max(lengths), segments=segments, sees_all=sees_all)

    @classmethod
    def mixed(cls, parts: tuple[Plan, ...]) -> Plan:
        """Return the plan of a pass whose ``[1, tokens]`` are those of ``parts``, one after the other."""
        positions = torch.cat([part.positions.reshape(1, -1) for part in parts], dim=1)
        return cls(0, 1, positions, max(part.length for part in parts), parts=parts)

    def rotation(self, embeddings: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a vector and its halves swapped are multiplied by, ``[rows, query, head_dim]`` each.

        Args:
            embeddings: cosines and sines of the pass, ``[rows, query, head_dim]``; the same in all layers.
        """
        if self._rotation is None:
            cosines, sines = embeddings
            half = sines.shape[-1] // 2
            signed = torch.cat((-sines[..., :half], sines[..., half:]), dim=-1)
            self._rotation = cosines.contiguous(), signed
        return self._rotation

    def places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the row and the position of each token, int64 ``[tokens]``, one row after the other."""
        if self._places is None:
            rows = [
                torch.arange(part.first_row, part.last_row).repeat_interleave(part.query)
                for part in self.parts or (self,)
            ]
            self._places = torch.cat(rows), self.positions.flatten()
        return self._places

    def write(self, stored: torch.Tensor, new: torch.Tensor) -> None:
        """Write ``[rows, heads, query, size]`` into a layer's ``[slots, heads, positions, size]``."""
        if self.start is not None:
            stored[self.first_row, :, self.start : self.length] = new[0]
            return
        _, heads, room, size = stored.shape
        key = (heads, room, stored.device)
        if key not in self._written:
            rows = torch.arange(self.first_row, self.last_row, device=stored.device).unsqueeze(1)
            first = (rows * heads + torch.arange(heads, device=stored.device)) * room
            self._written[key] = (first + self.positions.to(stored.device)).flatten()
        # One copy of whole vectors: several times cheaper than a scatter of single numbers.
        stored.view(-1, size).index_copy_(0, self._written[key], new.reshape(-1, size))


def _segments(lengths: list[int]) -> tuple[tuple[int, int, int], ...]:
    """Split rows into runs that attend together, so that short rows do not read as far as the longest."""
    if len(lengths) <= _SEGMENT_ROWS:
        return ()
    runs: list[tuple[int, int, int]] = []
    for first in range(0, len(lengths), _SEGMENT_ROWS):
        last = min(first + _SEGMENT_ROWS, len(lengths))
        runs.append((first, last, max(lengths[first:last])))
    longest = max(lengths)
    saved = sum((last - first) * (longest - length) for first, last, length in runs)
    return tuple(runs) if saved > 0.1 * longest * len(lengths) else ()
