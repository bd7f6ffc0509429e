"""Attention masks of a forward pass: causal, and within a window where the model has one.

A query at position ``p`` of its row sees positions ``0..p``; in a layer with a sliding window of
``w`` tokens only ``p-w+1..p`` (the definition of transformers' ``sliding_window_overlay``).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import get_layer_types_and_kwargs

__all__ = ["MaskBuilder", "windows"]

_SLIDING = "sliding_attention"
_FULL = "full_attention"


def windows(text: Any) -> dict[str, int | None]:
    """Return the window in tokens of each kind of layer; None for full attention.

    Args:
        text: the Hugging Face config of the language model.
    """
    types, settings = get_layer_types_and_kwargs(text)
    found: dict[str, int | None] = {}
    for kind, options in zip(types, settings, strict=True):
        found[kind] = options.get("sliding_window") if kind == _SLIDING else None
    return found


class MaskBuilder:
    """Builds the mask that goes into the model: one tensor, or one per kind of layer.

    Args:
        text: the Hugging Face config of the language model.
        positions: positions of a row.
        dtype: of the mask; what the model computes in.
        device: where the mask goes.
    """

    def __init__(self, text: Any, positions: int, dtype: torch.dtype, device: torch.device) -> None:
        # A window that no row can outgrow is none.
        self._windows = {
            kind: None if window is None or window >= positions else window
            for kind, window in windows(text).items()
        }
        self._dtype = dtype
        self._lowest = torch.finfo(dtype).min
        self._range = torch.arange(positions, device=device)

    @property
    def is_one(self) -> bool:
        """Whether all layers have the same mask."""
        return len(set(self._windows.values())) == 1

    @property
    def sees_all(self) -> bool:
        """Whether a token looks at all positions before it, in every layer.

        Chunks count as all: ``support.py`` refuses those that are shorter than a row.
        """
        return set(self._windows.values()) == {None}

    def build(self, positions: torch.Tensor, length: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return additive masks ``[rows, 1, query, length]``.

        Args:
            positions: int64 ``[rows, query]``.
            length: keys that are looked at.
        """
        if self.is_one:
            return self._mask(positions, length, next(iter(self._windows.values())))
        return {kind: self._mask(positions, length, window) for kind, window in self._windows.items()}

    def _mask(self, positions: torch.Tensor, length: int, window: int | None) -> torch.Tensor:
        at = positions.unsqueeze(-1)
        keys = self._range[:length]
        hidden = keys > at
        if window is not None:
            hidden |= keys <= at - window
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=hidden.device)
        return mask.masked_fill_(hidden, self._lowest).unsqueeze(1)
