"""What a client may ask of an engine, checked once, with errors that name the input."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from checkpoints.errors import RequestError

__all__ = ["MAX_STOP_WORDS", "GenerationRequest", "SamplingParameters"]

MAX_STOP_WORDS = 16


@dataclass(frozen=True)
class SamplingParameters:
    """How the next token is chosen and when generation ends.

    Raises:
        RequestError: a value is outside its range; the message names the input and the range.
    """

    max_tokens: int = 256
    """New tokens at most; what the context has left when that is less."""

    min_tokens: int = 0
    """New tokens before an end-of-sequence token may be chosen."""

    temperature: float = 0.0
    """0 is greedy; otherwise logits are divided by it."""

    top_p: float = 1.0
    """Keep the most likely tokens whose probabilities sum to at least this (Holtzman et al. 2020)."""

    min_p: float = 0.0
    """Keep tokens at least this times as likely as the most likely one (Nguyen et al. 2024)."""

    top_k: int = 0
    """Keep this many of the most likely tokens; 0 keeps all."""

    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens seen before (Keskar et al. 2019)."""

    presence_penalty: float = 0.0
    """Subtracted once from the logits of tokens already generated."""

    frequency_penalty: float = 0.0
    """Subtracted from the logits of generated tokens once per occurrence."""

    seed: int | None = None
    """Seed of this request's random numbers; drawn at random and returned when not given."""

    ignore_eos: bool = False
    """Go on to ``max_tokens`` even after an end-of-sequence token."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("max_tokens", 1, 2**31 - 1),
            ("min_tokens", 0, 2**31 - 1),
            ("temperature", 0.0, 5.0),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("top_k", 0, 2**31 - 1),
            ("repetition_penalty", 0.0, 10.0),
            ("presence_penalty", -10.0, 10.0),
            ("frequency_penalty", -10.0, 10.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise RequestError(f"{name} is {value!r}; accepted: {low} to {high}")
            if isinstance(low, int) and value != int(value):
                raise RequestError(f"{name} is {value!r}; accepted: a whole number, {low} to {high}")
            if not low <= value <= high:
                raise RequestError(f"{name} is {value!r}; accepted: {low} to {high}")
        for name in ("top_p", "repetition_penalty"):
            if getattr(self, name) == 0:
                raise RequestError(f"{name} is 0; accepted: above 0")
        if self.min_tokens > self.max_tokens:
            raise RequestError(f"min_tokens is {self.min_tokens}, more than max_tokens, {self.max_tokens}")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise RequestError(f"seed is {self.seed!r}; accepted: 0 to 2^64 - 1")
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos is {self.ignore_eos!r}; accepted: true or false")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of all parameters, in order."""
        return tuple(item.name for item in fields(cls))

    @property
    def filters(self) -> bool:
        """Whether any token is left out of the draw."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def penalizes(self) -> bool:
        """Whether any penalty differs from its neutral value."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt to complete.

    Raises:
        RequestError: no prompt, too many stop words, or an empty stop word.
    """

    prompt_ids: list[int]
    """Token ids of the prompt, special tokens included."""

    sampling: SamplingParameters = field(default_factory=SamplingParameters)
    """How tokens are chosen."""

    stop_words: tuple[str, ...] = ()
    """Texts that end generation; the text is cut before the first of them."""

    return_log_probs: bool = False
    """Whether to report each new token's log-probability under the model (before any penalty)."""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise RequestError("the prompt is empty; it must have at least one token")
        if len(self.stop_words) > MAX_STOP_WORDS:
            raise RequestError(
                f"stop_words has {len(self.stop_words)} entries; accepted: at most {MAX_STOP_WORDS}"
            )
        if any(not word for word in self.stop_words):
            raise RequestError("stop_words has an empty entry; accepted: non-empty texts")

    def completion_limit(self, max_context: int) -> int:
        """New tokens this request may have in a context of ``max_context`` tokens.

        Raises:
            RequestError: the prompt leaves no room for one new token.
        """
        room = max_context - len(self.prompt_ids)
        if room < 1:
            raise RequestError(
                f"the prompt has {len(self.prompt_ids)} tokens and the context holds {max_context}; "
                "shorten the prompt, or export with a larger max_context"
            )
        return min(self.sampling.max_tokens, room)
