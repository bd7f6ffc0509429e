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
    """Number of the simulated user, from 0; -1 where none was free to send it."""
    prompt: int
    """Index of the prompt in its file, from 0."""
    streamed: bool
    """Whether tokens were visible one by one. If not, there is no time to first token."""
    end_ns: int = 0
    """When the last byte was seen, or the failure."""
    outcome: Literal["ok", "failed", "cut", "unsent"] = "cut"
    """``cut``: still in flight when the run ended; neither a success nor a failure. ``unsent``: it was due in
    an open loop, but until the end of the run no user was free to send it; ``start_ns`` is that end."""
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
    completion_tokens: int | None = None
    """Tokens of the answer, as the model counts them at the end."""
    intended_ns: int | None = None
    """When the schedule of an open loop wanted it sent; None in a closed loop."""
    ready_ns: int | None = None
    """When a user was free to send it: ``intended_ns`` where one waited; None in a closed loop."""
    target: int = 0
    """Which of the URLs it was sent to, from 0."""
    sequence: int = 0
    """Its place in the run, from 0, over all workers: the same place asks the same in every run of a seed."""
    turn: int = 0
    """Its turn in a conversation, from 0; all turns have the place of the first."""
    input_tokens: int | None = None
    """Tokens of the prompt as ``--tokenizer`` counts them; None where nobody did."""
    max_tokens: int | None = None
    """Most tokens it asked for."""

    @property
    def asked_ns(self) -> int:
        """When a client of the endpoint would have asked: latencies count from here.

        In an open loop that is the intended start, so a request that had to wait in the load generator,
        because the answers before it were slow, counts that wait (no coordinated omission).
        """
        return self.start_ns if self.intended_ns is None else self.intended_ns

    @property
    def output_tokens(self) -> int:
        """Tokens received."""
        return sum(self.chunk_tokens)

    def to_line(self) -> str:
        """Return the record as one line of JSON, in text that UTF-8 can hold, whatever a server said."""
        line = json.dumps({name: getattr(self, name) for name in self.__slots__}, ensure_ascii=False)
        return line if line.isascii() else line.encode("utf-8", "replace").decode()


def read_records(path: Path) -> Iterator[Record]:
    """Read the records of a ``requests.jsonl`` in the order in which they ended."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield Record(**json.loads(line))
