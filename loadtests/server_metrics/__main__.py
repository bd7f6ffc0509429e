"""``python -m loadtests.server_metrics``: reads metrics at a fixed interval until its stdin closes.

The first line of stdin is the order: ``urls``, ``model``, ``interval_s``, ``ca_file``, and for Triton's
statistics of the model ``targets`` and ``headers``. Snapshots go to stdout (``snapshot.py``). When stdin
closes, the load is over, or its process is gone: what the server still has to publish is waited for, read,
and that is the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from loadtests.server_metrics.batch_sizes import BatchSizes
from loadtests.server_metrics.endpoint import fetch
from loadtests.server_metrics.snapshot import Key, Snapshot, SnapshotWriter, parse_metrics

_SETTLE_S = 0.4
"""The model's process publishes several times a second; so much later the last requests are counted."""
_LONGEST_TIMEOUT_S = 5.0


def main() -> int:
    """Read until the parent has enough."""
    order = json.loads(sys.stdin.readline())
    with contextlib.suppress(OSError):
        os.nice(5)  # beside the load and the server, this can wait: each snapshot says when it was
    writer = SnapshotWriter(sys.stdout)
    batches = BatchSizes(order["targets"], order["model"], order["headers"], _ca_file(order))
    interval_s = float(order["interval_s"])
    begun_s, rounds = time.monotonic(), 0
    while True:
        writer.write(_read(order, batches))
        # On a grid, so that a slow answer delays no other; a missed place on it is left out.
        rounds = max(rounds + 1, int((time.monotonic() - begun_s) / interval_s) + 1)
        wait_s = begun_s + rounds * interval_s - time.monotonic()
        if select.select([sys.stdin], [], [], max(wait_s, 0))[0]:
            break
    writer.write(_read(order, batches))
    time.sleep(_SETTLE_S)
    writer.write(_read(order, batches))
    return 0


def _ca_file(order: dict[str, Any]) -> Path | None:
    return None if order["ca_file"] is None else Path(order["ca_file"])


def _read(order: dict[str, Any], batches: BatchSizes) -> Snapshot:
    values: dict[Key, float] = {}
    ca_file = _ca_file(order)
    timeout_s = min(max(2 * float(order["interval_s"]), 1.0), _LONGEST_TIMEOUT_S)
    before_ns = time.perf_counter_ns()
    for number, url in enumerate(order["urls"]):
        try:
            values |= parse_metrics(fetch(url, ca_file, timeout_s), order["model"], number)
        except (OSError, ValueError) as error:
            return Snapshot(time.perf_counter_ns(), failure=f"{url}: {error}")
    values |= batches.read(timeout_s)
    return Snapshot((before_ns + time.perf_counter_ns()) // 2, values)


if __name__ == "__main__":
    raise SystemExit(main())
