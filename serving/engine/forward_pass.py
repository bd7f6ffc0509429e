"""What the attention layers of one forward pass read and leave behind, while a model is exported.

An exported graph has its KV cache as inputs and outputs. Hugging Face's models call the attention
function their config names and pass it no cache of ours, so the function finds it here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

__all__ = ["ForwardPass", "LayerShape", "current_pass", "forward_pass"]


@dataclass(frozen=True)
class LayerShape:
    """What one layer caches of one token."""

    key_heads: int
    key_size: int
    value_heads: int
    value_size: int


@dataclass
class ForwardPass:
    """One forward pass."""

    past: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Keys and values of each layer; empty for a pass from nothing."""

    present: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Layer -> its keys and values after the pass."""

    shapes: dict[int, LayerShape] = field(default_factory=dict)
    """Layer -> what it caches."""

    last_positions: torch.Tensor | None = None
    """int32 ``[batch]``: position of the last token of each row, where the attention asks for it."""

    length: torch.Tensor | None = None
    """int32 scalar: the longest row, this pass included, where the attention asks for it."""


_passes: list[ForwardPass] = []


@contextmanager
def forward_pass(state: ForwardPass) -> Iterator[ForwardPass]:
    """Let the attention layers use ``state`` meanwhile."""
    _passes.append(state)
    try:
        yield state
    finally:
        _passes.pop()


def current_pass() -> ForwardPass:
    """Return the state of the innermost pass; there must be one."""
    return _passes[-1]
