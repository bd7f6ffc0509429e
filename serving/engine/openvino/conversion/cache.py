"""A ``Cache`` that keeps nothing: the attention function holds the past, this reports its length."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

__all__ = ["PassThroughCache"]


class _Layer(CacheLayerMixin):
    def __init__(self, past_length: int) -> None:
        super().__init__()
        self._past_length = past_length
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is allocated."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is given."""
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what a query may look at."""
        return self._past_length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens in the past."""
        return self._past_length

    def get_query_offset(self) -> int:
        """Position of the first new token."""
        return self._past_length

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class PassThroughCache(Cache):
    """Gives the modelling code back what it stores.

    Args:
        layers: decoder layers.
        past_length: tokens in the past; a traced size while a model is traced.
    """

    def __init__(self, layers: int, past_length: int) -> None:
        super().__init__(layers=[_Layer(past_length) for _ in range(layers)])
