"""Weights of linear layers as a kernel reads them: panels of ``PANEL`` output features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from serving.engine.torch.compiled.layout import PANEL

__all__ = ["Panels", "by_panel", "each_panel", "gates_beside_inputs"]


@dataclass(frozen=True)
class Panels:
    """Laid out weights of one kind, and what their kernel needs to compute with them.

    Args:
        kernel: that reads them.
        dtype: of inputs and outputs.
        tensors: by the name of the kernel's argument that says where they are; ``weights`` is
            ``[panels, ...]``.
        floats: float32 numbers of scratch that a thread needs.
        row_floats: such numbers that it needs for each row of a block.
    """

    kernel: str
    dtype: torch.dtype
    tensors: Mapping[str, torch.Tensor]
    floats: int = 0
    row_floats: int = 0

    @cached_property
    def count(self) -> int:
        """How many."""
        return self.tensors["weights"].shape[0]

    @cached_property
    def device(self) -> torch.device:
        """Where they are."""
        return self.tensors["weights"].device


def each_panel(values: torch.Tensor, order: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield ``[PANEL, ...]`` for each panel: one by one, so that little stands twice.

    Args:
        values: ``[outputs, ...]``.
        order: outputs as they stand in the panels; -1 and what is missing at the end is filled with zeros.
    """
    for panel in order.split(PANEL):
        rows = values.new_zeros((PANEL, *values.shape[1:]))
        there = panel >= 0
        rows[: len(panel)][there] = values[panel[there]]
        yield rows


def by_panel(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Return one number of each output, ``[outputs, parts]``, as float32 ``[panels, parts, PANEL]``."""
    return torch.stack([rows.float().T for rows in each_panel(values, order)]).contiguous()


def gates_beside_inputs(features: int) -> torch.Tensor:
    """Return the order of ``2 * features`` outputs in which each panel has gates and then their inputs.

    Places that are no output's hold -1.
    """
    half = PANEL // 2
    gates = torch.full((-(-features // half) * half,), -1)
    gates[:features] = torch.arange(features)
    gates = gates.view(-1, half)
    return torch.stack((gates, torch.where(gates < 0, -1, gates + features)), dim=1).flatten()
