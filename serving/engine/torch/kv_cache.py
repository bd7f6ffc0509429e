"""Keys and values of all slots, in the form Hugging Face's modelling code asks for.

Each layer holds ``[slots, kv_heads, positions, head_dim]``. Before a forward pass the runner
names the rows and positions it computes; ``update`` writes the new keys and values there and
returns a view of the rows' first ``length`` positions. What lies beyond a row's own length is
masked by the runner, so nothing has to be cleared when a slot changes hands.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from serving.engine.torch.plan import Plan

__all__ = ["SlotCache", "SlotLayer"]


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, on the device the layer computes on."""

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate for the head counts and sizes of the first keys and values seen."""
        for name, states in (("keys", key_states), ("values", value_states)):
            heads, size = states.shape[1], states.shape[3]
            shape = (self._cache.slots, heads, self._cache.positions, size)
            setattr(self, name, torch.zeros(shape, dtype=states.dtype, device=states.device))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``[rows, heads, query, size]`` at the plan's positions; return what may be seen."""
        return self.store(self._cache.plan, key_states, value_states)

    def store(
        self, plan: Plan, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``[rows, heads, query, size]`` at the positions of ``plan``; return what it may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        plan.write(self.keys, key_states)
        plan.write(self.values, value_states)
        return self.seen(plan)

    def seen(self, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values that ``plan`` may look at."""
        rows, length = slice(plan.first_row, plan.last_row), plan.length
        return self.keys[rows, :, :length], self.values[rows, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that the next update returns."""
        return self._cache.plan.length, 0

    def get_seq_length(self) -> int:
        """Positions already stored, as far as the modelling code may ask: before the query."""
        return self._cache.plan.length - self._cache.plan.query

    def get_max_length(self) -> int:
        """Positions a row holds."""
        return self._cache.positions

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of row ``source`` over row ``target``."""
        self.read_into(self, source, target, slice(0, length))

    def read_into(self, other: SlotLayer, source: int, target: int, span: slice) -> None:
        """Copy positions ``span`` of row ``source`` to row ``target`` of ``other``."""
        if self.is_initialized:
            other.keys[target, :, span] = self.keys[source, :, span]
            other.values[target, :, span] = self.values[source, :, span]


class SlotCache(Cache):
    """The KV cache of all slots.

    Args:
        layers: decoder layers of the model.
        slots: rows.
        positions: positions of a row.
    """

    def __init__(self, layers: int, slots: int, positions: int) -> None:
        self.slots = slots
        self.positions = positions
        self.plan = Plan.empty()
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of row ``source`` over row ``target``."""
        for layer in self.layers:
            layer.move_row(source, target, length)
