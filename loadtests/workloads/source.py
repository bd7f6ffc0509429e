"""The prompts of a run, from the source that the settings choose, in the order in which they are sent."""

from __future__ import annotations

import json
import random
from dataclasses import replace

from loadtests.errors import PromptFileError
from loadtests.workloads.jsonl import read_jsonl
from loadtests.workloads.packages import gsm8k, humaneval
from loadtests.workloads.prefixes import make_prefixes, prefix_of
from loadtests.workloads.prompt import Prompt
from loadtests.workloads.settings import WorkloadSettings
from loadtests.workloads.sharegpt import read_sharegpt
from loadtests.workloads.synthetic import synthetic_prompts
from loadtests.workloads.tokens import TextMaker, read_tokenizer

__all__ = ["check_workload_files", "load_prompts"]


def load_prompts(
    settings: WorkloadSettings, *, takes_messages: bool = True, most: int | None = None
) -> list[Prompt]:
    """Return the prompts in an order that depends on the seed alone; synthetic ones are made at random.

    Args:
        settings: what is asked.
        takes_messages: whether the protocol has conversations. Else those of one turn become texts.
        most: how many requests there are at most, where that is known.

    Raises:
        PromptFileError: a file of prompts cannot be used.
        ConfigError: a package is missing, a tokenizer cannot be used, or a protocol has no conversations.
    """
    maker = None if settings.tokenizer is None else read_tokenizer(settings.tokenizer)
    prefixes = [] if maker is None else make_prefixes(settings, maker)
    if settings.workload == "synthetic":
        assert maker is not None  # by the checks
        count = settings.unique_prompts if most is None else min(most, settings.unique_prompts)
        prompts = synthetic_prompts(settings, maker, prefixes, count)
    else:
        prompts = [
            _prefixed(prompt, prefix_of(prompt.index, prefixes, settings), maker)
            for prompt in _read(settings, takes_messages)
        ]
        random.Random(settings.seed).shuffle(prompts)
    if settings.turns > 1 and not any(prompt.later for prompt in prompts):
        raise PromptFileError(
            f"{settings.prompts or 'the packaged mix'}: nothing in it has a second turn, and turns is "
            f"{settings.turns}; choose another file or --workload, or leave --turns out"
        )
    if not takes_messages and any(prompt.messages is not None for prompt in prompts):
        raise PromptFileError(
            f"{settings.prompts or settings.workload}: it holds conversations, and the protocol takes texts "
            "alone; choose --protocol openai_chat"
        )
    return prompts


def check_workload_files(settings: WorkloadSettings) -> None:
    """Read every file that the settings name, and make nothing of them.

    Raises:
        PromptFileError: a file of prompts cannot be used.
        ConfigError: a package is missing, or a tokenizer cannot be used.
    """
    if settings.tokenizer is not None:
        read_tokenizer(settings.tokenizer)
    if settings.workload != "synthetic":
        _read(settings, takes_messages=True)


def _read(settings: WorkloadSettings, takes_messages: bool) -> list[Prompt]:
    if settings.workload == "prompts":
        return read_jsonl(settings.prompts, settings.turns)
    if settings.workload == "sharegpt":
        assert settings.prompts is not None  # by the checks
        found = read_sharegpt(settings.prompts, settings.turns)
    else:
        found = humaneval() if settings.workload == "humaneval" else gsm8k()
    # A question is a chat where there are chats, and a text else.
    return found if takes_messages else [_as_text(prompt) for prompt in found]


def _as_text(prompt: Prompt) -> Prompt:
    if prompt.messages is None or prompt.later:
        return prompt
    said = json.loads(prompt.messages)
    return replace(prompt, text="\n\n".join(message["content"] for message in said), messages=None)


def _prefixed(prompt: Prompt, prefix: str | None, maker: TextMaker | None) -> Prompt:
    """Return a prompt with its system prompt, and its tokens where they can be counted."""
    if prefix is not None:
        prompt = (
            prompt.with_system(prefix)
            if prompt.text is None
            else replace(prompt, text=f"{prefix}\n\n{prompt.text}")
        )
    if prompt.text is None or maker is None:
        return prompt
    return replace(prompt, tokens=maker.count(prompt.text))
