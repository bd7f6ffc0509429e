"""Does a second task wash out the first? LoRA on GSM8K, then on HumanEval, with and without EWC.

SmolLM2-135M-Instruct learns task A, worked answers of GSM8K, and its run saves the Fisher information
(``ewc.save``). From that adapter it learns task B, solutions of HumanEval: as it is, with EWC at several
weights, and, as a control that needs no EWC, at a lower learning rate. Losses are of held-out rows of both.

  python -m benchmarks.forgetting                    # about 7 minutes on two idle cores
  python -m benchmarks.forgetting --weights 1000,10000 --steps 12

Results go to benchmarks/results/forgetting.{json,md}. The last line printed is one JSON object of nats per
token: "forgotten/RUN" is what B added to A's loss, "learned/RUN" what it took off its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.forgetting_report import render_forgetting
from benchmarks.machine import machine_facts
from benchmarks.preparation import default_precision, demo_checkpoint, tell
from checkpoints.errors import TrimaranError

__all__ = ["main"]

_TRAIN, _HELD_OUT = 40, 20
_LENGTH = 512
_BATCH = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        results = _measure(options)
    except TrimaranError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "forgetting"
    target.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = render_forgetting(results)
    target.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    print(json.dumps(_differences(results)))
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from training.config import TrainConfig
    from training.data.config import DataConfig
    from training.ewc.config import EwcSettings
    from training.metrics import read_metrics
    from training.run import train

    base, precision = demo_checkpoint(), default_precision()
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="forgetting-", dir=base.parent) as folder:
        work = Path(folder)
        tasks = _write_tasks(work)

        def learn(name: str, task: str, rate: float = options.learning_rate, **more: Any) -> Path:
            data = DataConfig(train=tasks[task, "train"], max_length=_LENGTH)
            adapter = train(
                TrainConfig(
                    model=str(base),
                    data=data,
                    output=work / name,
                    dtype=precision,  # type: ignore[arg-type]
                    device="cpu",
                    learning_rate=rate,
                    warmup_steps=5,
                    batch_size=_BATCH,
                    epochs=1000,
                    max_steps=options.steps,
                    save_steps=10**6,
                    **more,
                )
            )
            rows = read_metrics(work / name / "metrics.jsonl")
            runs[name] = {
                **_losses(tasks, adapter),
                "learning_rate": rate,
                "weight": more["ewc"].weight if "ewc" in more and more["ewc"].from_run else None,
                "penalty": rows[-1].get("ewc_penalty"),
            }
            tell(f"{name}: task A {runs[name]['a']:.3f}, task B {runs[name]['b']:.3f}")
            return adapter

        runs["base"] = _losses(tasks, base)
        tell(f"base: task A {runs['base']['a']:.3f}, task B {runs['base']['b']:.3f}")
        first = learn("a", "a", ewc=EwcSettings(save=True, samples=_TRAIN))
        learn("none", "b", adapter=first)
        for weight in options.weights:
            ewc = EwcSettings(from_run=work / "a", weight=weight)
            learn(f"ewc-{weight:g}", "b", adapter=first, ewc=ewc)
        learn("slower", "b", rate=options.learning_rate / 4, adapter=first)
    return {
        "machine": machine_facts(),
        "precision": precision,
        "rows": {"train": _TRAIN, "held_out": _HELD_OUT},
        "steps": options.steps,
        "batch_size": _BATCH,
        "runs": runs,
    }


def _write_tasks(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the files of rows by task and part."""
    from trimaran.demo_data import human_eval_problems, write_demo_data

    demo = write_demo_data(folder / "demo")
    lines = [
        line
        for path in (demo.train, demo.evaluation)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    code = [
        {"prompt": problem["prompt"], "completion": problem["canonical_solution"]}
        for problem in human_eval_problems()
    ]
    found = {}
    for task, rows in (("a", lines), ("b", [json.dumps(row) for row in code])):
        parts = {"train": rows[:_TRAIN], "held-out": rows[_TRAIN : _TRAIN + _HELD_OUT]}
        for part, chosen in parts.items():
            found[task, part] = folder / f"{task}-{part}.jsonl"
            found[task, part].write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return found


def _losses(tasks: dict[tuple[str, str], Path], checkpoint: Path) -> dict[str, float]:
    from trimaran.demo_loss import completion_loss

    return {
        task: round(completion_loss(checkpoint, tasks[task, "held-out"], max_length=_LENGTH), 4)
        for task in ("a", "b")
    }


def _differences(results: dict[str, Any]) -> dict[str, float]:
    runs = results["runs"]
    after_a = runs["a"]
    later = [name for name in runs if name not in ("base", "a")]
    return {f"forgotten/{name}": round(runs[name]["a"] - after_a["a"], 4) for name in later} | {
        f"learned/{name}": round(after_a["b"] - runs[name]["b"], 4) for name in later
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forgetting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--weights", type=lambda text: [float(part) for part in text.split(",")], metavar="A,B",
        default=[10.0, 100.0, 1e3, 1e4], help="of EWC, a run each (default 10,100,1000,10000)")  # fmt: skip
    add("--steps", type=int, default=30, metavar="N", help="optimizer steps of each task (default 30)")
    add("--learning-rate", type=float, default=4e-4, metavar="X", help="highest rate (default 4e-4)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
