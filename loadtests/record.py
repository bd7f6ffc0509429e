"""The raw record of one request: what was seen when, nothing derived.

One record is one line of ``requests.jsonl``. Times are integer nanoseconds of a monotonic clock since
the load began. Every metric is computed from these records, so a run can be measured again later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Record", "read_records"]


@dataclass(slots=True)
class Record:
    """One request, from sending to the last byte."""

    start_ns: int
    """When it was sent. In a closed loop that is also when it was meant to be sent."""
    user: int
    """Number of the simulated user, from 0."""
    prompt: int
    """Index of the prompt in its file, from 0."""
    streamed: bool
    """Whether tokens were visible one by one. If not, there is no time to first token."""
    end_ns: int = 0
    """When the last byte was seen, or the failure."""
    outcome: Literal["ok", "failed", "cut"] = "cut"
    """``cut``: still in flight when the run ended; neither a success nor a failure."""
    failure: str | None = None
    """Kind of failure (``failures.py``), if it failed."""
    detail: str | None = None
    """What the server said, if it failed."""
    chunk_ns: list[int] = field(default_factory=list)
    """When each chunk that carries tokens was seen."""
    chunk_tokens: list[int] = field(default_factory=list)
    """How many tokens each of these chunks carries (the length of its ``output_ids``)."""
    finish_reason: str | None = None
    """``stop``, ``length``... as the model says it at the end."""
    prompt_tokens: int | None = None
    """Tokens of the prompt, as the model counts them."""

    @property
    def output_tokens(self) -> int:
        """Tokens received."""
        return sum(self.chunk_tokens)

    def to_line(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, ensure_ascii=False)


def read_records(path: Path) -> Iterator[Record]:
    """Read the records of a ``requests.jsonl`` in the order in which they ended."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield Record(**json.loads(line))
