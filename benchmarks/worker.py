"""The measuring end: a process that runs workloads against one engine and reports what it saw.

It runs in the peer's own environment, so it imports nothing but the standard library. It reads JSON
lines from standard input, first its options, then workloads, and answers each with one line. What
libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from benchmarks.traces import Trace
from benchmarks.workload import Item

__all__ = ["Measure", "serve"]

Measure = Callable[[Sequence[Item], int], list[Trace]]
"""(requests, concurrency) -> what was seen of each."""


def serve(load: Callable[[Mapping[str, Any]], Measure]) -> None:
    """Load an engine, then run workloads until standard input ends.

    Args:
        load: options -> what runs a workload.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        measure = load(json.loads(sys.stdin.readline()))
    except Exception as error:
        _fail(answers, error)
        os._exit(1)
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        items = [Item(**item) for item in asked["items"]]
        try:
            traces = measure(items, asked["concurrency"])
        except Exception as error:
            _fail(answers, error)
        else:
            _answer(answers, {"traces": [trace.as_json() for trace in traces]})
    # Threads of engines may hang on the way out, and nothing is left to be saved.
    os._exit(0)


def _fail(answers: IO[str], error: Exception) -> None:
    traceback.print_exc()
    _answer(answers, {"error": f"{type(error).__name__}: {error}"})


def _answer(answers: IO[str], message: Mapping[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()
