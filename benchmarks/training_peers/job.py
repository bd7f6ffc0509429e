"""What every trainer gets, and what it answers. Imports nothing but the standard library and transformers."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["EPOCHS", "Job", "answer", "step_clock"]

EPOCHS = 2
"""The first one warms up, the second is measured."""


@dataclass(frozen=True)
class Job:
    """One run: the same rows, weights, adapter and optimizer for all."""

    checkpoint: str
    rows: list[list[int]]
    """Token ids; every token is trained on."""
    texts: str
    """The same rows as JSONL, for who encodes them itself."""
    packing: bool
    length: int
    """Tokens of a sequence, at most."""
    batch: int
    """Sequences of a step."""
    threads: int
    rank: int
    learning_rate: float
    output: str
    accumulation: int = 1
    """Passes of a step, at most: a step ends with its epoch."""
    epochs: int = EPOCHS
    adapter: str | None = None
    """The adapter to start from; by default each trainer draws its own."""


def answer(run: Callable[[Job, Any], None]) -> None:
    """Run the job named on the command line and print what was measured as the last line."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    import torch

    torch.set_num_threads(job.threads)
    clock = step_clock()
    run(job, clock)
    measured = clock.seconds[len(clock.seconds) // job.epochs :]
    result = {
        "seconds": sum(measured),
        "steps": len(clock.seconds),
        "losses": clock.losses,
        "peak_rss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    print(json.dumps(result), flush=True)


def step_clock() -> Any:
    """Return a Trainer callback with ``seconds`` and ``losses`` of each optimizer step."""
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.losses: list[float] = []
            self._began = 0.0

        def on_step_begin(self, *arguments: Any, **more: Any) -> None:
            self._began = time.perf_counter()

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            self.seconds.append(time.perf_counter() - self._began)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if logs and "loss" in logs:
                self.losses.append(float(logs["loss"]))

    return StepClock()
