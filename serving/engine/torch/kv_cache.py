"""Keys and values of all slots, in the form Hugging Face's modelling code asks for.

Each layer holds ``[slots, kv_heads, max_context, head_dim]``. Before a forward pass the runner
names the rows and positions it computes; ``update`` scatters the new keys and values there and
returns a view of the rows' first ``length`` positions. What lies beyond a row's own length is
masked by the runner, so nothing has to be cleared when a slot changes hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

__all__ = ["Plan", "SlotCache"]


@dataclass(frozen=True)
class Plan:
    """Which rows and positions a forward pass computes."""

    rows: slice
    """Rows of the cache: a contiguous range."""

    positions: torch.Tensor
    """int64 ``[rows, query]``: position of each new token in its row."""

    length: int
    """Positions the pass may look at: the largest position plus one."""


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer."""

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate for the head counts and sizes of the first keys and values seen."""
        for name, states in (("keys", key_states), ("values", value_states)):
            heads, size = states.shape[1], states.shape[3]
            shape = (self._cache.slots, heads, self._cache.max_context, size)
            setattr(self, name, torch.zeros(shape, dtype=states.dtype, device=states.device))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``[rows, heads, query, size]`` at the plan's positions; return what may be seen."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        plan = self._cache.plan
        index = plan.positions[:, None, :, None]
        seen = []
        for stored, new in ((self.keys, key_states), (self.values, value_states)):
            rows = stored[plan.rows]
            rows.scatter_(2, index.expand(new.shape), new)
            seen.append(rows[:, :, : plan.length])
        return seen[0], seen[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that the next update returns."""
        return self._cache.plan.length, 0

    def get_seq_length(self) -> int:
        """Positions already stored, as far as the modelling code may ask: before the query."""
        return self._cache.plan.length - self._cache.plan.positions.shape[1]

    def get_max_length(self) -> int:
        """Positions a row holds."""
        return self._cache.max_context

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of row ``source`` over row ``target``."""
        if self.is_initialized:
            self.keys[target, :, :length] = self.keys[source, :, :length]
            self.values[target, :, :length] = self.values[source, :, :length]


class SlotCache(Cache):
    """The KV cache of all slots.

    Args:
        layers: decoder layers of the model.
        slots: rows.
        max_context: positions of a row.
    """

    def __init__(self, layers: int, slots: int, max_context: int) -> None:
        self.slots = slots
        self.max_context = max_context
        self.plan = Plan(slice(0, 0), torch.zeros((0, 0), dtype=torch.int64), 0)
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of row ``source`` over row ``target``."""
        for layer in self.layers:
            layer.move_row(source, target, length)
