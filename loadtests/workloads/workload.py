"""What each request of a run asks: a function of the seed and of the request's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from loadtests.credentials import Credentials
from loadtests.workloads.lengths import Lengths, parse_lengths
from loadtests.workloads.pauses import Pause, parse_pause
from loadtests.workloads.prompt import Prompt
from loadtests.workloads.settings import WorkloadSettings

__all__ = ["SAMPLING", "Request", "Workload", "make_workload"]

SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
"""Sampling parameters that are sent when they are set."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one request asks."""

    prompt: Prompt
    max_tokens: int
    """Most tokens of the answer."""
    forced: bool = False
    """Whether the answer has to have exactly ``max_tokens``."""
    options: Mapping[str, float] = field(default_factory=dict)
    """Sampling parameters by the names that Triton's contract and OpenAI-compatible servers share."""

    @property
    def parameters(self) -> dict[str, bool | int | float]:
        """Everything but the prompt, by the same names."""
        exact = {"min_tokens": self.max_tokens, "ignore_eos": True} if self.forced else {}
        return {"max_tokens": self.max_tokens, **exact, **self.options}


@dataclass(frozen=True)
class Workload:
    """What to ask, and how."""

    model: str
    """Name of the model."""
    prompts: list[Prompt]
    """Prompts in the order in which they are sent, round and round."""
    request_timeout_s: float = 60.0
    """Seconds until a request counts as failed."""
    lengths: Lengths = field(default_factory=lambda: parse_lengths("64", "max_tokens"))
    """Most tokens per answer."""
    forced: bool = False
    """Whether every answer has to be exactly as long."""
    sampling: Mapping[str, float] = field(default_factory=lambda: {"temperature": 0.0})
    """Sampling parameters of all requests."""
    seed: int = 0
    """Decides lengths, pauses and each request's own seed."""
    pause: Pause = field(default_factory=lambda: Pause(0.0))
    """Between an answer and the next request of the same user."""
    credentials: Credentials = field(default_factory=Credentials)
    """What the endpoint wants to see."""

    def request(self, place: int, number: int = 0, prompt: Prompt | None = None) -> Request:
        """Return the request at a place of the run.

        Args:
            place: number of the request, or of its conversation, over all workers, from 0.
            number: turn of the conversation, from 0.
            prompt: what is said in a later turn, which depends on the answers.
        """
        prompt = prompt or self.prompts[place % len(self.prompts)]
        greedy, fixed = not self.sampling["temperature"], self.lengths.low == self.lengths.high
        if greedy and fixed:  # nothing is random, and seeding takes time
            return Request(prompt, self.lengths.low, self.forced, self.sampling)
        random = Random(f"request {self.seed} {place} {number}")
        max_tokens = self.lengths.draw(random)
        own: dict[str, float] = {} if greedy else {"seed": int(random.random() * 2**31)}
        return Request(prompt, max_tokens, self.forced, {**self.sampling, **own})

    def pause_s(self, place: int, number: int) -> float:
        """Return how many seconds the user of this request thinks after its answer."""
        if not self.pause.mean_s:
            return 0.0
        return self.pause.draw_s(Random(f"pause {self.seed} {place} {number}"))


def make_workload(
    settings: WorkloadSettings,
    prompts: list[Prompt],
    *,
    model: str,
    request_timeout_s: float,
    credentials: Credentials,
) -> Workload:
    """Return the workload of a run.

    Raises:
        ConfigError: a length cannot be read.
    """
    sampling: dict[str, float] = {"temperature": float(settings.temperature)}
    for name in SAMPLING:
        if (value := getattr(settings, name)) is not None:
            sampling[name] = value if name == "top_k" else float(value)
    return Workload(
        model=model,
        prompts=prompts,
        request_timeout_s=request_timeout_s,
        lengths=parse_lengths(str(settings.output_tokens or settings.max_tokens), "output_tokens"),
        forced=settings.force_output_tokens,
        sampling=sampling,
        seed=settings.seed,
        pause=parse_pause(settings.think_time),
        credentials=credentials,
    )
