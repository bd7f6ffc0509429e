"""One request's tokens as they become text: detokenized, cut at stop words, with the reason it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from serving.engine.contract import FinishReason, TokenEvent
from serving.engine.detokenizer import Decoder, IncrementalDetokenizer
from serving.engine.stop_words import StopMatcher

__all__ = ["Delta", "TextStream"]


@dataclass(frozen=True)
class Delta:
    """What one step brought for one request, ready for a client."""

    text: str = ""
    """New text."""

    token_ids: list[int] = field(default_factory=list)
    """New token ids, end-of-sequence and held-back ones included: clients count these."""

    log_probs: list[float] = field(default_factory=list)
    """Log-probabilities of the new ids; empty unless asked for."""

    finish_reason: FinishReason | Literal[""] = ""
    """Empty until the last delta."""

    prompt_tokens: int = 0
    """Tokens of the prompt."""

    completion_tokens: int = 0
    """Tokens generated so far."""


class TextStream:
    """Turns a request's token events into deltas.

    Args:
        tokenizer: anything with Hugging Face's ``decode``.
        stop_words: texts that end the request.
        prompt_tokens: length of the prompt.
        stream: whether text is wanted as it comes. Otherwise the last delta has all of it, detokenized
            at once; with stop words, tokens still become text as they come, or nobody would see one.
    """

    def __init__(
        self, tokenizer: Decoder, stop_words: tuple[str, ...], prompt_tokens: int, *, stream: bool = True
    ) -> None:
        self._detokenizer = IncrementalDetokenizer(tokenizer)
        self._stop = StopMatcher(stop_words)
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = 0
        self._at_once = not stream and not stop_words
        self._kept: list[int] = []

    def push(self, event: TokenEvent) -> Delta:
        """Return the delta of ``event``. A stop word sets its finish reason to ``stop``."""
        self._completion_tokens += len(event.token_ids)
        finish: FinishReason | Literal[""] = event.finish or ""
        new = event.token_ids
        if self._at_once:
            self._kept += new
            new = self._kept if finish else []
        text = self._stop.push(self._detokenizer.push(new)) if new else ""
        if finish and not self._stop.stopped:
            text += self._stop.push(self._detokenizer.flush())
        if self._stop.stopped:
            finish = "stop"
        elif finish:
            text += self._stop.flush()
        return Delta(
            text=text,
            token_ids=event.token_ids,
            log_probs=event.log_probs,
            finish_reason=finish,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
        )
