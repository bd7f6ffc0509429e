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

    def __init__(self, record: Record, collector: Collector, *, keep_text: bool = False) -> None:
        self._record = record
        self._collector = collector
        self._pieces: list[str] | None = [] if keep_text else None
        self.text_bytes = 0
        self.ended_ns: int | None = None
        """When its end was seen, where the user comes to it some time later."""
        self.now = collector.now
        """Returns the time stamp for a chunk. Take it before decoding the chunk."""

    @property
    def text(self) -> str:
        """What the model said, where it was to be kept; else empty."""
        return "".join(self._pieces or ())

    def add(
        self,
        seen_ns: int,
        tokens: int,
        text: str,
        finish_reason: str,
        prompt_tokens: int | None,
        completion_tokens: int | None = None,
    ) -> None:
        """Take one response of the model. One without tokens (a bare finish) gets no time stamp.

        Args:
            seen_ns: when it was seen.
            tokens: how many tokens it carries.
            text: its text.
            finish_reason: why the answer ends with it; empty before.
            prompt_tokens: tokens of the prompt, where it says so.
            completion_tokens: tokens of the answer up to here, where it says so.
        """
        record = self._record
        if tokens:
            record.chunk_ns.append(seen_ns)
            record.chunk_tokens.append(tokens)
            self._collector.tokens += tokens
        self.text_bytes += len(text)
        if self._pieces is not None:
            self._pieces.append(text)
        if finish_reason:
            record.finish_reason = finish_reason
        if prompt_tokens is not None:
            record.prompt_tokens = prompt_tokens
        if completion_tokens is not None:
            record.completion_tokens = completion_tokens

    def add_piece(self, seen_ns: int, text: str) -> None:
        """Take one response of one token that says nothing else; the same as ``add`` with less to ask."""
        record = self._record
        record.chunk_ns.append(seen_ns)
        record.chunk_tokens.append(1)
        self._collector.tokens += 1
        self.text_bytes += len(text)
        if self._pieces is not None:
            self._pieces.append(text)

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
        self.add(
            seen_ns,
            tokens,
            str(outputs.get("text_output", "")),
            str(outputs.get("finish_reason") or ""),
            _whole_number(outputs.get("prompt_tokens")),
            _whole_number(outputs.get("completion_tokens")),
        )

    def spread(self, tokens: int) -> None:
        """Take the number of tokens of the whole answer, where the chunks do not say how many each carries.

        They are spread over the chunks as evenly as whole numbers allow. When each token came is then an
        estimate; when chunks came is not.
        """
        record = self._record
        chunks = len(record.chunk_ns)
        if not chunks or tokens < 0:
            return
        self._collector.tokens += tokens - record.output_tokens
        record.chunk_tokens = [tokens * (n + 1) // chunks - tokens * n // chunks for n in range(chunks)]

    def check_complete(self, max_tokens: int, *, forced: bool = False) -> None:
        """Check that the answer is whole.

        Args:
            max_tokens: most tokens that were asked for.
            forced: whether exactly as many were.

        Raises:
            RequestFailed: ``truncated`` without a finish reason, ``empty`` without a token, ``token_count``
                when the tokens are not as many as the model says or as were asked for.
        """
        record = self._record
        if not record.finish_reason:
            raise RequestFailed(
                "truncated", f"the stream ended after {record.output_tokens} tokens with no finish_reason"
            )
        if not record.output_tokens:
            raise RequestFailed("empty", f"finish_reason {record.finish_reason!r} and no token")
        said = record.completion_tokens
        if said is not None and said != record.output_tokens:
            raise RequestFailed("token_count", f"{record.output_tokens} tokens came, the model says {said}")
        if record.output_tokens > max_tokens:
            raise RequestFailed(
                "token_count", f"{record.output_tokens} tokens came, max_tokens is {max_tokens}"
            )
        if forced and record.output_tokens < max_tokens:
            raise RequestFailed(
                "token_count",
                f"{record.output_tokens} tokens came, {max_tokens} were forced (min_tokens, ignore_eos)",
            )


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) else None
