"""What master and workers tell each other, on Locust's own connection.

A test has a name, chosen by the master, so that what comes late is not taken for the next test's.

==========  ================================  ====================================================
master      ``parsed_options.trimaran_order`` run, workers (their ids), begin_unix_ns, run_time: travels
                                              with Locust's order to start users, which comes first
master      STOP                              run
worker      RECORDS, twice a second           format, run, sent_ns, cpu_seconds, lines; also empty
worker      DONE, after the last RECORDS      the same without lines, and count, problem, loop_lag
==========  ================================  ====================================================

``sent_ns`` is on the worker's own clock, nanoseconds since its load began, as are the times in its
records. In an open loop every load begins at ``begin_unix_ns`` of the hosts' wall clocks (null in a closed
loop, which begins on receipt). ``lines`` are lines of requests.jsonl. ``loop_lag`` is a ``Summary`` of how
late the worker saw what came to it, or null.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DONE", "FORMAT", "MAX_TEXT", "ORDER", "RECORDS", "STOP", "first_batch"]

ORDER = "trimaran_order"
STOP = "trimaran_stop"
RECORDS = "trimaran_records"
DONE = "trimaran_done"

FORMAT = 4
"""Changes when a record or a message does. A worker of another format cannot be merged."""
MAX_TEXT = 256 * 1024
"""Most characters of records in one message, unless a single record is longer."""


def first_batch(lines: Iterable[str]) -> list[str]:
    """Return the first of the lines, as many as one message holds and at least one."""
    batch: list[str] = []
    size = 0
    for line in lines:
        size += len(line)
        if batch and size > MAX_TEXT:
            break
        batch.append(line)
    return batch
