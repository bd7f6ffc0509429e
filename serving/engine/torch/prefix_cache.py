"""Keys and values of prompt beginnings that were computed before, such as a shared system prompt.

Prompts are cut into blocks. A block is known by the SHA-256 of all tokens up to its end, so equal
names mean equal keys and values whatever follows. Blocks are copied out of a slot when its prompt
is complete and copied into another slot before its prompt is computed; the store has a fixed size
and gives up what was used least recently. A request never changes what another one sees.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict

import torch

from serving.engine.torch.kv_cache import SlotCache

__all__ = ["BLOCK_SIZE", "PrefixCache"]

BLOCK_SIZE = 32
"""Tokens of a block."""


class PrefixCache:
    """A bounded store of blocks beside the slot cache.

    Args:
        cache: the slot cache.
        blocks: blocks that the store holds.
        block_size: tokens of a block.
    """

    def __init__(self, cache: SlotCache, *, blocks: int, block_size: int = BLOCK_SIZE) -> None:
        self._cache = cache
        self._block_size = block_size
        self._places: OrderedDict[bytes, int] = OrderedDict()
        """Name of a block -> its place in the store, the least recently used first."""
        self._free = list(range(blocks))
        self._stored: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Keys and values of each layer, ``[blocks, heads, block_size, size]``."""

    def load(self, row: int, prompt_ids: list[int]) -> int:
        """Copy what is known of a prompt's beginning into ``row``; return how many tokens that is.

        The last token is always left to compute: its logits are what a prompt is computed for.
        """
        places = []
        for name in self._names(prompt_ids[:-1]):
            if name not in self._places:
                break
            places.append(self._places[name])
        if not places:
            return 0
        self._touch(self._names(prompt_ids[: len(places) * self._block_size]))
        tokens = len(places) * self._block_size
        for layer, kept in zip(self._cache.layers, self._stored, strict=True):
            for target, source in zip((layer.keys, layer.values), kept, strict=True):
                blocks = source[torch.tensor(places, device=source.device)]
                target[row, :, :tokens] = blocks.transpose(0, 1).flatten(1, 2)
        return tokens

    def save(self, row: int, prompt_ids: list[int]) -> None:
        """Keep the whole blocks of the prompt that ``row`` holds, as far as the store has room."""
        names = self._names(prompt_ids)[: len(self._free) + len(self._places)]
        new = [index for index, name in enumerate(names) if name not in self._places]
        self._touch([name for name in names if name in self._places])
        if not new:
            return
        if not self._stored:
            self._allocate()
        places = []
        for index in new:
            place = self._free.pop() if self._free else self._places.popitem(last=False)[1]
            self._places[names[index]] = place
            places.append(place)
        self._touch(names)
        first, last = new[0], new[-1] + 1
        taken = torch.tensor(new) - first
        for layer, kept in zip(self._cache.layers, self._stored, strict=True):
            for source, target in zip((layer.keys, layer.values), kept, strict=True):
                span = source[row, :, first * self._block_size : last * self._block_size]
                blocks = span.unflatten(1, (last - first, self._block_size)).transpose(0, 1)
                target[torch.tensor(places, device=target.device)] = blocks[taken.to(source.device)]

    def _names(self, token_ids: list[int]) -> list[bytes]:
        """Return the names of the whole blocks at the beginning of ``token_ids``."""
        digest = hashlib.sha256()
        names = []
        for start in range(0, len(token_ids) - self._block_size + 1, self._block_size):
            digest.update(array("q", token_ids[start : start + self._block_size]).tobytes())
            names.append(digest.digest())
        return names

    def _touch(self, names: list[bytes]) -> None:
        """Mark as used. A block is of no use without those before it, so the first outlives the last."""
        for name in reversed(names):
            self._places.move_to_end(name)

    def _allocate(self) -> None:
        for layer in self._cache.layers:
            tensors = [
                stored.new_zeros((len(self._free), stored.shape[1], self._block_size, stored.shape[3]))
                for stored in (layer.keys, layer.values)
            ]
            self._stored.append((tensors[0], tensors[1]))
