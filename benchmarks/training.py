"""Fine-tuning, side by side: ``trimaran train`` against TRL and a plain Trainer, on this machine.

The same rows (GSM8K), weights (SmolLM2-135M-Instruct in bf16), LoRA (rank 16, all linear layers), optimizer
and number of tokens for all; each trains two epochs in a process of its own, of which the second is
measured. Rounds are interleaved, figures are medians.

  python -m benchmarks.training                      # about 25 minutes on two idle cores
  python -m benchmarks.training --peers ours-packed,trl-packed --rows 16 --rounds 1
  python -m benchmarks.training --curve-only         # about 7: only whether all learn the same

Then each trains some steps of all rows from one adapter, and the losses of a step must be the same but for
bf16's rounding, or the exit code is 1. Results go to benchmarks/results/training.{json,md}. The last line
printed is one JSON object of ratios, ours over theirs: "speed/PEER" of tokens per second, "memory/PEER" of
peak memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.environments import interpreter_for, run
from benchmarks.failures import PeerFailure
from benchmarks.machine import machine_facts, measure_floors
from benchmarks.preparation import make_setting, tell
from benchmarks.setting import Setting
from benchmarks.training_curve import TOLERANCE, measure_curves
from benchmarks.training_peers.job import EPOCHS, Job
from benchmarks.training_peers.trl import PINS
from benchmarks.training_report import render_training
from checkpoints.errors import TrimaranError
from checkpoints.manifest import read_manifest

__all__ = ["main"]

# Name -> (module, packed, sequences of a step).
PEERS: dict[str, tuple[str, bool, int]] = {
    "trainer-padded": ("hugging_face", False, 8),
    "trl-padded": ("trl", False, 8),
    "trl-packed": ("trl", True, 3),
    "ours-padded": ("ours", False, 8),
    "ours-packed": ("ours", True, 3),
}
_SHARED = ("torch", "transformers", "peft", "accelerate")
_LENGTH = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    target = options.output / "training"
    try:
        with make_setting(options.checkpoint, "bf16", threads=options.threads) as setting:
            if options.curve_only:
                results = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
            else:
                results = _run(options, setting)
            if options.curve_steps:
                results["curve"] = _curve(options, setting)
    except (TrimaranError, PeerFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = render_training(results)
    target.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    apart = results.get("curve", {}).get("largest_difference", 0.0)
    if apart > TOLERANCE:
        print(f"error: losses of a step are {apart:.2%} apart, {TOLERANCE:.0%} allowed", file=sys.stderr)
    print(json.dumps(results["ratios"]))
    return int(apart > TOLERANCE)


def _run(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in options.peers}
    with tempfile.TemporaryDirectory(prefix="training-", dir=setting.cache) as folder:
        jobs = _jobs(options.peers, setting, options.rows, Path(folder))
        rows = next(iter(jobs.values()))[1].rows
        tokens = sum(map(len, rows))
        for number in range(options.rounds):
            # Every other round backwards: no peer always comes after the same one.
            for name in options.peers if number % 2 == 0 else reversed(options.peers):
                module, job = jobs[name]
                job = replace(job, output=str(Path(folder) / f"{name}-{number}"))
                result = _train(setting, module, job, Path(folder) / "job.json")
                found[name].append(result)
                rate = tokens / result["seconds"]
                tell(f"round {number + 1} {name}: {rate:.0f} tokens/s, {result['peak_rss'] / 1e9:.2f} GB")
    peers = {
        name: {
            "tokens_per_second": round(tokens / median(one["seconds"] for one in runs), 1),
            "peak_rss": median(one["peak_rss"] for one in runs),
            "steps": runs[0]["steps"],
            "epoch_losses": _epoch_losses(runs[0]["losses"]),
        }
        for name, runs in found.items()
    }
    floors = measure_floors(setting.threads, "bf16")
    # Two FLOPs per weight and token forward, two for the gradient of what goes in; the base's own weights
    # have none.
    floor = floors["matmul_flops_per_second"] / (4 * read_manifest(setting.checkpoint).parameters)
    return {
        "machine": machine_facts(),
        "threads": setting.threads,
        "rows": len(rows),
        "tokens": tokens,
        "rounds": options.rounds,
        "floor_tokens_per_second": round(floor, 1),
        "versions": {name: version(name) for name in _SHARED} | dict(pin.split("==") for pin in PINS),
        "peers": peers,
        "ratios": _ratios(peers),
    }


def _curve(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="training-", dir=setting.cache) as folder:
        jobs = _jobs(options.peers, setting, options.curve_rows, Path(folder))

        def train(module: str, job: Job) -> dict[str, Any]:
            return _train(setting, module, job, Path(folder) / "job.json")

        return measure_curves(jobs, train, options.curve_steps, Path(folder))


def _jobs(peers: Sequence[str], setting: Setting, count: int, folder: Path) -> dict[str, tuple[str, Job]]:
    """Return the module and the job of each peer, on the same ``count`` rows."""
    texts, rows = _rows(setting, count)
    jsonl = folder / "rows.jsonl"
    jsonl.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    jobs = {}
    for name in peers:
        module, packing, batch = PEERS[name]
        jobs[name] = (
            module,
            Job(
                checkpoint=str(setting.checkpoint),
                rows=rows,
                texts=str(jsonl),
                packing=packing,
                length=_LENGTH,
                batch=batch,
                threads=setting.threads,
                rank=16,
                learning_rate=2e-4,
                output=str(folder / name),
            ),
        )
    return jobs


def _epoch_losses(losses: list[float]) -> list[float]:
    """Return the mean loss over the steps of each epoch: orders of rows differ between trainers."""
    size = len(losses) // EPOCHS
    return [round(fmean(losses[start : start + size]), 4) for start in range(0, size * EPOCHS, size)]


def _rows(setting: Setting, count: int) -> tuple[list[str], list[list[int]]]:
    """Return texts of GSM8K, question and answer, and their token ids as our trainer encodes them."""
    from checkpoints.prompt import PromptEncoder
    from training.data.encoding import RowEncoder
    from training.data.formats import Row
    from trimaran.demo_data import write_demo_data

    data = write_demo_data(setting.cache / "data")
    texts = []
    for path in (data.train, data.evaluation):
        for line in path.read_text(encoding="utf-8").splitlines():
            texts.append("\n".join(part["content"] for part in json.loads(line)["messages"]))
    texts = texts[:count]
    encoder = PromptEncoder.from_checkpoint(setting.checkpoint)
    rows = RowEncoder(encoder, encoder.tokens)
    return texts, [rows.encode(Row("benchmark", "text", text=text)).input_ids[:_LENGTH] for text in texts]


def _train(setting: Setting, module: str, job: Job, file: Path) -> dict[str, Any]:
    file.write_text(json.dumps(asdict(job)), encoding="utf-8")
    python = Path(sys.executable)
    if module == "trl":
        shared = [f"{name}=={version(name).partition('+')[0]}" for name in _SHARED]
        folder = setting.cache / "trl"
        folder.mkdir(exist_ok=True)
        python = interpreter_for(
            folder, [*shared, *PINS], log=setting.logs / "trl-install.log", timeout=setting.build_timeout
        )
    log = setting.logs / f"training-{module}.log"
    before = log.stat().st_size if log.exists() else 0
    run([str(python), "-m", f"benchmarks.training_peers.{module}", str(file)], log=log, timeout=1800)
    said = log.read_bytes()[before:].decode("utf-8", "replace")
    lines = [line for line in said.splitlines() if line.startswith('{"seconds"')]
    if not lines:
        raise PeerFailure(f"{module} printed no result; log: {log}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _ratios(peers: dict[str, Any]) -> dict[str, float]:
    ours = peers.get("ours-packed")
    if ours is None:
        return {}
    ratios = {}
    for name, facts in peers.items():
        if not name.startswith("ours"):
            ratios[f"speed/{name}"] = round(ours["tokens_per_second"] / facts["tokens_per_second"], 3)
            ratios[f"memory/{name}"] = round(ours["peak_rss"] / facts["peak_rss"], 3)
    return ratios


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", type=_peers, default=list(PEERS), metavar="A,B", help=f"of {', '.join(PEERS)}")
    add("--rows", type=int, default=32, metavar="N", help="rows to train on, at most 60 (default 32)")
    add("--rounds", type=int, default=3, metavar="N", help="interleaved rounds (default 3)")
    add("--curve-rows", type=int, default=16, metavar="N", help="rows of a step of the curves (default 16)")
    add("--curve-steps", type=int, default=6, metavar="N", help="steps of the curves, 0 for none (default 6)")
    add("--curve-only", action="store_true", help="only the curves; the results that are there keep the rest")
    add("--threads", type=int, help="math threads (default: the cores)")
    add("--checkpoint", type=Path, help="another checkpoint with a manifest (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


def _peers(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; accepted: {', '.join(PEERS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
