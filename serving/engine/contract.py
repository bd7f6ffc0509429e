"""The contract of an engine: requests in, tokens out, one step at a time.

An engine knows token ids and nothing about text, Triton or threads. It is driven by one thread
(``loop.py``), so it needs no locks. It may hold its KV cache and its scheduler itself or leave both
to a library: the contract asks only for slots, handles and events.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from serving.engine.request import GenerationRequest

__all__ = ["Capacity", "Counters", "Engine", "FinishReason", "Handle", "TokenEvent"]

FinishReason = Literal["stop", "length", "cancelled"]

Handle = int
"""Names one request inside one engine."""


@dataclass(frozen=True)
class Capacity:
    """What an engine holds at once."""

    slots: int
    """Requests."""

    max_context: int
    """Tokens of one request, prompt and completion together."""

    kv_tokens: int
    """Positions of the KV cache, of all requests together."""


@dataclass
class Counters:
    """What an engine has done; read by metrics, written by the engine."""

    running: int = 0
    """Requests in a slot now."""

    waiting: int = 0
    """Requests submitted and not yet in a slot."""

    steps: int = 0
    """Decode steps so far."""

    last_batch: int = 0
    """Rows of the last decode step."""

    peak_batch: int = 0
    """Largest decode step so far, in rows."""

    prompt_tokens: int = 0
    """Prompt tokens computed so far."""

    completion_tokens: int = 0
    """Tokens generated so far."""

    prefill_seconds: float = 0.0
    """Time spent in prefill."""

    decode_seconds: float = 0.0
    """Time spent in decode."""

    kv_tokens: int = 0
    """Positions of the KV cache that requests hold now."""

    def reset(self) -> None:
        """Forget what was done so far (a warm-up); what runs and waits stays counted."""
        fresh = Counters(running=self.running, waiting=self.waiting, kv_tokens=self.kv_tokens)
        vars(self).update(vars(fresh))


@dataclass(frozen=True)
class TokenEvent:
    """What one step brought for one request."""

    handle: Handle
    """The request."""

    token_ids: list[int] = field(default_factory=list)
    """New tokens, in order."""

    log_probs: list[float] = field(default_factory=list)
    """Their log-probabilities; empty unless asked for."""

    finish: FinishReason | None = None
    """Why the request ended; ``None`` while it goes on."""

    error: Exception | None = None
    """Why this request alone failed; it has ended."""

    admitted: bool = False
    """The request entered a slot; such an event brings nothing else."""


class Engine(ABC):
    """Generates tokens for many requests at once."""

    counters: Counters

    @property
    @abstractmethod
    def capacity(self) -> Capacity:
        """What the engine holds at once."""

    @abstractmethod
    def submit(self, request: GenerationRequest) -> Handle:
        """Queue ``request``; it enters a slot in a later ``step``.

        Raises:
            RequestError: the prompt does not fit the context.
        """

    @abstractmethod
    def cancel(self, handle: Handle) -> None:
        """End a request and free its slot; no further event names it. Unknown handles are ignored."""

    @abstractmethod
    def step(self) -> Sequence[TokenEvent]:
        """Admit what fits, compute one step, and return what it brought.

        An engine that computes elsewhere (another process, an asynchronous library) waits here for
        events, a fraction of a second at most, and may return none.
        """

    def wake(self) -> None:  # noqa: B027 - most engines never wait
        """Make a ``step`` that waits for events return soon; the one method called from other threads."""

    def check_alive(self) -> None:  # noqa: B027 - most engines live as long as this object
        """Notice, while there is nothing to do, that the engine can no longer compute.

        Raises:
            Exception: it cannot; the loop then treats it as any failed step.
        """

    def close(self) -> None:  # noqa: B027 - most engines hold nothing outside
        """Free what the engine holds outside this object; it is not used afterwards."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self.counters.running + self.counters.waiting > 0
