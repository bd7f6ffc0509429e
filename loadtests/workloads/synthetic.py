"""Prompts of given lengths in tokens, made of words without a meaning."""

from __future__ import annotations

from random import Random

from loadtests.workloads.lengths import parse_lengths
from loadtests.workloads.prefixes import prefix_of
from loadtests.workloads.prompt import Prompt, conversation
from loadtests.workloads.settings import WorkloadSettings
from loadtests.workloads.tokens import TextMaker

__all__ = ["synthetic_prompts"]


def synthetic_prompts(
    settings: WorkloadSettings, maker: TextMaker, prefixes: list[str], count: int
) -> list[Prompt]:
    """Return the first ``count`` prompts of a seed; a longer list begins with the shorter one.

    A prompt of one turn is a text, its length the tokens that the model gets for it, special ones included,
    and a system prompt's on top of them. In a conversation each of the user's texts has such a length, and
    what the chat template adds comes on top.

    Raises:
        ConfigError: the tokenizer has no text of such a length.
    """
    lengths = parse_lengths(str(settings.input_tokens), "input_tokens")
    prompts: list[Prompt] = []
    for index in range(count):
        random = Random(f"synthetic {settings.seed} {index}")
        prefix = prefix_of(index, prefixes, settings)
        if settings.turns > 1:
            said = [
                maker.make(lengths.draw(random) + maker.special, random, "input_tokens")
                for _ in range(settings.turns)
            ]
            prompts.append(conversation(index, said, prefix))
            continue
        tokens = lengths.draw(random) + (settings.prefix_tokens if prefix else 0)
        text = maker.make(tokens, random, "input_tokens", before=prefix or "")
        prompts.append(Prompt(index, text=text, messages=None, tokens=tokens))
    return prompts
