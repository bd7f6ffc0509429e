"""Settings of what is asked. ``loadtests/config.py`` adds where, how, when, and what is good enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loadtests.workloads.checks import check_workload_settings

__all__ = ["WorkloadSettings"]


@dataclass
class WorkloadSettings:
    """What is asked.

    The request at each place of the run follows from these settings alone.
    """

    workload: str = "prompts"
    """Where prompts come from: prompts or sharegpt (the file --prompts), humaneval or gsm8k (Python
    packages), or synthetic (text of --input-tokens)."""
    prompts: Path | None = None
    """JSONL file, one prompt per line (key prompt, text or messages); for sharegpt a JSON file of
    conversations. Default: a mix that is included."""
    tokenizer: Path | None = None
    """The model's tokenizer.json, or the directory it is in. Needed where lengths are in tokens."""
    input_tokens: int | str | None = None
    """Tokens of each synthetic prompt: 200, uniform:16..128, normal:512,64 (mean, standard deviation) or
    lognormal:512,0.5 (median, standard deviation of the logarithm), bounded by lognormal:512,0.5,16..4096."""
    output_tokens: int | str | None = None
    """Most tokens of each answer, written like --input-tokens. Default: --max-tokens."""
    force_output_tokens: bool = False
    """Have every answer be exactly that long (min_tokens and ignore_eos); another length is a failure."""
    unique_prompts: int = 1000
    """How many synthetic prompts are made before the run. Longer runs repeat them."""
    prefixes: int | None = None
    """So many different system prompts are shared by the requests, as a prefix cache likes it."""
    prefix_tokens: int = 256
    """Tokens of each of these system prompts."""
    prefix_share: float = 1.0
    """Share of the prompts that begin with one of them, 0 to 1."""
    turns: int = 1
    """Most turns of a conversation. Each sends all turns before it with the answers that the model gave."""
    think_time: str = "0s"
    """Pause of a user between an answer and the next request: 2s, or exponential:2s with the mean."""
    seed: int = 0
    """Seed of everything random: prompts, lengths, order, arrivals, pauses and sampling."""
    max_tokens: int = 64
    """Most tokens to generate per request."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy. Above it each request has a seed of its own, given by --seed."""
    top_p: float | None = None
    """Sample from the most probable tokens that together have this probability."""
    top_k: int | None = None
    """Sample from so many most probable tokens."""
    min_p: float | None = None
    """Sample from tokens at least so probable, relative to the most probable one."""
    repetition_penalty: float | None = None
    """Above 1: tokens that came before become less probable."""
    presence_penalty: float | None = None
    """Subtracted once from the logits of tokens already generated."""
    frequency_penalty: float | None = None
    """Subtracted from the logits of generated tokens once per occurrence."""

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens"):
            if isinstance(value := getattr(self, name), int):
                setattr(self, name, str(value))
        check_workload_settings(self)
