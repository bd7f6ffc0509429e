"""Requests of chosen, equal lengths, for measurements that ask what a length costs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.workload import Item, Lengths, make_items

__all__ = ["equal_items"]


def equal_items(
    texts: Sequence[Sequence[int]], count: int, prompt_length: int, output_length: int
) -> list[Item]:
    """Return ``count`` requests of the same two lengths and different texts."""
    lengths = Lengths(prompt_length, prompt_length, 1.0, output_length, output_length)
    return make_items(texts, count, lengths)
