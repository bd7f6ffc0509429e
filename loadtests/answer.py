"""An answer while it arrives: a time stamp and a token count for every chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.collector import Collector
from loadtests.failures import RequestFailed
from loadtests.record import Record

__all__ = ["Answer"]


class Answer:
    """Fills a record from the chunks of one answer. Protocols call ``add`` once per response."""

    def __init__(self, record: Record, collector: Collector) -> None:
        self._record = record
        self._collector = collector
        self.text_bytes = 0

    def now(self) -> int:
        """Return the time stamp for a chunk. Take it before decoding the chunk."""
        return self._collector.now()

    def add(
        self, seen_ns: int, tokens: int, text_bytes: int, finish_reason: str, prompt_tokens: int | None
    ) -> None:
        """Take one response of the model. One without tokens (a bare finish) gets no time stamp."""
        record = self._record
        if tokens:
            record.chunk_ns.append(seen_ns)
            record.chunk_tokens.append(tokens)
            self._collector.tokens += tokens
        self.text_bytes += text_bytes
        if finish_reason:
            record.finish_reason = finish_reason
        if prompt_tokens is not None:
            record.prompt_tokens = prompt_tokens

    def add_outputs(self, seen_ns: int, outputs: Mapping[str, Any]) -> None:
        """Take one response given as the JSON of Triton's generate extension.

        Triton writes a tensor of one element as a scalar, so ``output_ids`` may be a number.

        Raises:
            RequestFailed: ``malformed``, when ``output_ids`` is missing or not ids.
        """
        ids = outputs.get("output_ids")
        if isinstance(ids, int):
            tokens = 1
        elif isinstance(ids, list):
            tokens = len(ids)
        else:
            raise RequestFailed("malformed", f"output_ids is {ids!r}, not a list of ids")
        text = outputs.get("text_output", "")
        prompt_tokens = outputs.get("prompt_tokens")
        self.add(
            seen_ns,
            tokens,
            len(str(text)),
            str(outputs.get("finish_reason") or ""),
            prompt_tokens if isinstance(prompt_tokens, int) else None,
        )

    def check_complete(self) -> None:
        """Check that the answer is whole.

        Raises:
            RequestFailed: ``truncated`` without a finish reason, ``empty`` without a token.
        """
        record = self._record
        if not record.finish_reason:
            raise RequestFailed(
                "truncated", f"the stream ended after {record.output_tokens} tokens with no finish_reason"
            )
        if not record.output_tokens:
            raise RequestFailed("empty", f"finish_reason {record.finish_reason!r} and no token")
