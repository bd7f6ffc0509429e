"""One method trained in this process: ``python -m benchmarks.methods_worker TASK RESULT``.

TASK is JSON, made by ``benchmarks.methods``; what was measured is written to the file RESULT.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import peak_rss, resident

__all__ = ["main"]

_MAX_LENGTH = 512


def main(task: dict[str, Any], result: Path) -> None:
    """Train and measure."""
    from checkpoints.manifest import read_manifest
    from training.config import TrainConfig
    from training.data.config import DataConfig
    from training.methods.lora.config import ALL_LINEAR, LoraSettings
    from training.metrics import read_metrics
    from training.run import train
    from trimaran.demo_loss import completion_loss

    output = Path(task["output"])
    before = resident(os.getpid())  # Python and its libraries
    trained = train(
        TrainConfig(
            model=task["model"],
            data=DataConfig(train=Path(task["train"]), max_length=_MAX_LENGTH),
            output=output,
            method=task["method"],
            lora=LoraSettings(rank=16, alpha=32, target_modules=task.get("targets", ALL_LINEAR)),
            learning_rate=task["learning_rate"],
            schedule="constant",
            batch_size=task["batch_size"],
            epochs=1000,
            max_steps=task["steps"],
            save_steps=10**6,
        )
    )
    peak = peak_rss(os.getpid())
    manifest = read_manifest(trained)
    rows = read_metrics(output / "metrics.jsonl")
    parameters = read_manifest(Path(task["model"])).parameters
    trainable = manifest.parameters
    facts = {
        "settings": {name: task[name] for name in ("method", "learning_rate", "targets") if name in task},
        "dtype": manifest.settings["dtype"],
        "peak_bytes": peak,
        "libraries_bytes": before,
        "tokens_per_second": round(median(row["tokens_per_second"] for row in rows[1:]), 2),
        "trainable": trainable,
        "trainable_share": trainable / parameters,
        "first_loss": rows[0]["loss"],
        "final_loss": rows[-1]["loss"],
        "eval_loss": completion_loss(trained, Path(task["evaluation"]), max_length=_MAX_LENGTH),
    }
    result.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
