"""Each fine-tuning method on the same model and rows: memory, speed, trained share, loss.

  python -m benchmarks.methods                    # about 5 minutes on two cores
  python -m benchmarks.methods --steps 24 --methods lora,full

SmolLM2-135M-Instruct on 48 rows of GSM8K, as in the demo; the loss is of 12 held-out rows. Each method
trains in a process of its own, so its peak memory is its own. Beside that, what each takes at 7B is
computed. Results go to benchmarks/results/methods.json and methods.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.machine import machine_facts
from benchmarks.methods_estimate import estimate_methods
from benchmarks.methods_report import render_methods
from benchmarks.preparation import demo_checkpoint, tell
from benchmarks.processes import end, start
from checkpoints.errors import TrimaranError

__all__ = ["METHODS", "main"]

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full", "learning_rate": 5e-5},
    "lora": {"method": "lora", "learning_rate": 4e-4},
    "lora-qv": {"method": "lora", "learning_rate": 4e-4, "targets": ["q_proj", "v_proj"]},
    "qlora": {"method": "qlora", "learning_rate": 4e-4},
    "bottleneck": {"method": "bottleneck", "learning_rate": 1e-3},
}
"""Settings that differ; the learning rates are each method's usual one for so few steps on a small model."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        results = _measure(options)
    except (TrimaranError, PeerFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    text = render_methods(results)
    for name, content in (("methods.json", json.dumps(results, indent=2) + "\n"), ("methods.md", text)):
        (options.output / name).write_text(content, encoding="utf-8")
        tell(f"written: {options.output / name}")
    print(text)
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from trimaran.demo_data import write_demo_data
    from trimaran.demo_loss import completion_loss

    base = demo_checkpoint()
    results: dict[str, Any] = {
        "machine": machine_facts(),
        "steps": options.steps,
        "batch_size": options.batch_size,
        "methods": {},
        "estimated": estimate_methods({name: METHODS[name] for name in options.methods}),
    }
    with tempfile.TemporaryDirectory(prefix="methods-", dir=base.parent) as folder:
        work = Path(folder)
        data = write_demo_data(work / "data")
        for name in options.methods:
            task = {
                **METHODS[name],
                "model": str(base),
                "train": str(data.train),
                "evaluation": str(data.evaluation),
                "output": str(work / name),
                "steps": options.steps,
                "batch_size": options.batch_size,
            }
            results["methods"][name] = facts = _run(name, task, work)
            tell(
                f"{name}: peak {facts['peak_bytes'] / 1e6:,.0f} MB, {facts['tokens_per_second']:.0f} tokens/s"
            )
        tell("base: loss before training")
        results["base_loss"] = completion_loss(base, data.evaluation, max_length=512)
    return results


def _run(name: str, task: dict[str, Any], work: Path) -> dict[str, Any]:
    log, result = work / f"{name}.log", work / f"{name}.json"
    tell(f"{name}: training")
    command = [sys.executable, "-m", "benchmarks.methods_worker", json.dumps(task), str(result)]
    process = start(command, log)
    try:
        code = process.wait()
    finally:
        end(process)
    if code != 0 or not result.is_file():
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise PeerFailure(f"training with {name} ended with exit code {code}:\n{tail}")
    facts: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return facts


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--methods", type=lambda text: text.split(","), metavar="A,B", default=list(METHODS),
        help=f"of {', '.join(METHODS)} (default: all)")  # fmt: skip
    add("--steps", type=int, default=8, metavar="N", help="optimizer steps of each (default 8)")
    add("--batch-size", type=int, default=4, metavar="N", help="rows per step (default 4)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    options = parser.parse_args(arguments)
    unknown = [name for name in options.methods if name not in METHODS]
    if unknown:
        parser.error(f"--methods: {unknown[0]!r} is unknown; accepted: {', '.join(METHODS)}")
    if options.steps < 2 or options.batch_size < 1:
        parser.error("--steps must be at least 2 (the first is a warm-up), --batch-size at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
