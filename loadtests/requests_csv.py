"""``requests.csv``: one row per request, for a spreadsheet or a data frame.

::

    place              warmup, measured or cooldown: only measured ones are in the results
    asked_s            when it was asked for: in an open loop its intended start, else when it was sent
    start_s, end_s     when it was sent, and when the last byte came; seconds since the load began
    user, prompt       which simulated user sent which prompt, from 0; user -1 where none was free
    sequence, turn     its place in the run, from 0, and its turn in a conversation, from 0
    target             which of the URLs, from 0
    outcome            ok, failed, cut (in flight at the end) or unsent
    failure, detail    its kind (docs/loadtesting.md), and what the server said
    finish_reason      as the model said it
    input_tokens       of the prompt, as ``--tokenizer`` counts them
    prompt_tokens      of the prompt, as the model counts them
    max_tokens         the most it asked for
    output_tokens      that arrived
    chunks             in which they arrived
    ttft_ms, tpot_ms   time to first token, time per output token
    itl_max_ms         longest gap between two chunks
    e2e_ms             end-to-end latency
    lateness_ms        how much later than intended it was sent
    queueing_delay_ms  the part of that in which no user was free
    meets_objectives   true or false; empty where no objective is set, and where it was cut too early to tell

What is undefined is empty, never 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from loadtests.metrics.catalog import request_metrics
from loadtests.metrics.meets_objectives import breaks_objectives, meets_objectives
from loadtests.metrics.metric import Window
from loadtests.record import Record

__all__ = ["COLUMNS", "CSV_NAME", "RequestsCsv", "requests_csv"]

CSV_NAME = "requests.csv"
_ONE_SAMPLE = ("ttft", "tpot", "e2e", "lateness", "queueing_delay")
COLUMNS = (
    "place", "asked_s", "start_s", "end_s", "user", "prompt", "sequence", "turn", "target", "outcome",
    "failure", "detail", "finish_reason", "input_tokens", "prompt_tokens", "max_tokens", "output_tokens",
    "chunks", "ttft_ms", "tpot_ms", "itl_max_ms", "e2e_ms", "lateness_ms", "queueing_delay_ms",
    "meets_objectives",
)  # fmt: skip


class RequestsCsv:
    """Takes requests one by one; see ``requests_csv``."""

    def __init__(self, writer: csv.DictWriter[str], window: Window, objectives: Mapping[str, int]) -> None:
        self._writer = writer
        self._window = window
        self._objectives = objectives
        self._metrics = {metric.tag: metric for metric in request_metrics()}

    def add(self, record: Record) -> None:
        """Write the row of one request."""
        row: dict[str, object] = {
            "place": self._window.place(record),
            "asked_s": _seconds(record.asked_ns),
            "start_s": _seconds(record.start_ns),
            "end_s": _seconds(record.end_ns),
            "user": record.user,
            "prompt": record.prompt,
            "sequence": record.sequence,
            "turn": record.turn,
            "target": record.target,
            "outcome": record.outcome,
            "failure": record.failure,
            "detail": _plain(record.detail),
            "finish_reason": record.finish_reason,
            "input_tokens": record.input_tokens,
            "prompt_tokens": record.prompt_tokens,
            "max_tokens": record.max_tokens,
            "output_tokens": record.output_tokens,
            "chunks": len(record.chunk_ns),
            "itl_max_ms": _milliseconds(max(self._samples("itl", record), default=None)),
        }
        for tag in _ONE_SAMPLE:
            row[f"{tag}_ms"] = _milliseconds(next(iter(self._samples(tag, record)), None))
        known = record.outcome != "cut" or breaks_objectives(record, self._objectives)
        if self._objectives and known:
            row["meets_objectives"] = "true" if meets_objectives(record, self._objectives) else "false"
        self._writer.writerow(row)

    def _samples(self, tag: str, record: Record) -> list[int]:
        metric = self._metrics[tag]
        return list(metric.samples(record)) if record.outcome in metric.outcomes else []


@contextmanager
def requests_csv(path: Path, window: Window, objectives: Mapping[str, int]) -> Iterator[RequestsCsv]:
    """Open ``path`` and yield what takes the requests.

    Args:
        path: the file to write.
        window: the measured part of the run.
        objectives: tag of a request metric -> most nanoseconds a request may take.
    """
    with path.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.DictWriter(sink, COLUMNS, restval="")
        writer.writeheader()
        yield RequestsCsv(writer, window, objectives)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.6f}"


def _milliseconds(nanoseconds: int | None) -> str:
    return "" if nanoseconds is None else f"{nanoseconds / 1e6:.3f}"


def _plain(text: str | None) -> str | None:
    """Return what a server said so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text
