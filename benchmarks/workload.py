"""The requests that every peer gets: real token ids, skewed lengths, the same on every machine.

Prompts are uniform in 16 to 128 tokens. Output lengths are exponential with mean 48, clipped to 4 to
192, and forced: nobody may stop early or go on. Everything follows from one seed.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

__all__ = ["Item", "Lengths", "fingerprint", "make_items"]

SEED = 20240607


@dataclass(frozen=True)
class Item:
    """One request."""

    index: int
    """Its place in the workload."""

    prompt_ids: list[int]
    """Token ids of the prompt."""

    max_tokens: int
    """Tokens to generate, exactly."""


@dataclass(frozen=True)
class Lengths:
    """How long prompts and outputs are, in tokens."""

    prompt_min: int = 16
    prompt_max: int = 128
    output_mean: float = 48.0
    output_min: int = 4
    output_max: int = 192


def make_items(
    texts: Sequence[Sequence[int]], count: int, lengths: Lengths | None = None, seed: int = SEED
) -> list[Item]:
    """Return ``count`` requests; a longer list begins with the shorter one.

    Args:
        texts: token ids of real texts; a prompt is the beginning of one, lengthened by the next ones.
        count: requests wanted.
        lengths: the lengths' distributions.
        seed: of the random numbers.
    """
    lengths = lengths or Lengths()
    # Only random() is promised to be the same in every Python.
    draw = random.Random(seed).random
    order = sorted(range(len(texts)), key=lambda _: draw())
    items = []
    for index in range(count):
        prompt_length = lengths.prompt_min + int(draw() * (lengths.prompt_max - lengths.prompt_min + 1))
        output = -lengths.output_mean * math.log(1.0 - draw())
        items.append(
            Item(
                index=index,
                prompt_ids=_prompt(texts, order, index, prompt_length),
                max_tokens=round(min(max(output, lengths.output_min), lengths.output_max)),
            )
        )
    return items


def fingerprint(items: Sequence[Item]) -> str:
    """Return a short hash of the requests: equal hashes, equal work."""
    text = json.dumps([asdict(item) for item in items], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _prompt(texts: Sequence[Sequence[int]], order: Sequence[int], index: int, length: int) -> list[int]:
    ids: list[int] = []
    place = index
    while len(ids) < length:
        ids += texts[order[place % len(order)]]
        place += 1
    return ids[:length]
