"""System prompts that many requests share: what a prefix cache is for."""

from __future__ import annotations

from random import Random

from loadtests.workloads.settings import WorkloadSettings
from loadtests.workloads.tokens import TextMaker

__all__ = ["make_prefixes", "prefix_of"]


def make_prefixes(settings: WorkloadSettings, maker: TextMaker) -> list[str]:
    """Return the different system prompts, each of ``prefix_tokens`` tokens.

    Raises:
        ConfigError: the tokenizer has no text of that length.
    """
    tokens = settings.prefix_tokens + maker.special
    return [
        maker.make(tokens, Random(f"prefix {settings.seed} {number}"), "prefix_tokens")
        for number in range(settings.prefixes or 0)
    ]


def prefix_of(index: int, prefixes: list[str], settings: WorkloadSettings) -> str | None:
    """Return the system prompt of the prompt with this index; None for those that have none."""
    random = Random(f"prefix of {settings.seed} {index}")
    if random.random() >= settings.prefix_share or not prefixes:
        return None
    return prefixes[int(random.random() * len(prefixes))]
