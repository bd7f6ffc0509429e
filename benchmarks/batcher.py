"""How Triton's dynamic batcher should be set in front of an engine that batches in flight.

  python -m benchmarks.batcher
  python -m benchmarks.batcher --engine torch --weights bf16 --delays 0,1000,10000

The same workload through Triton with each queue delay, rounds interleaved. Results go to
benchmarks/results/batcher.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.machine import machine_facts
from benchmarks.preparation import make_setting, tell
from benchmarks.prompts import prompt_texts
from benchmarks.serving_peers.triton import TritonGrpc
from benchmarks.setting import Setting
from benchmarks.traces import Figures, figures_of
from benchmarks.workload import make_items
from checkpoints.errors import TrimaranError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        with make_setting(options.checkpoint, "auto") as setting:
            rows = _run(options, setting)
    except (TrimaranError, PeerFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "batcher.json"
    facts = {"machine": machine_facts(), "engine": options.engine, "weights": options.weights}
    results = {**facts, "rounds": options.rounds, "points": rows}
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    tell(f"written: {target}")
    print(
        json.dumps({f"{row['delay_us']}us@c{row['concurrency']}": row["tokens_per_second"] for row in rows})
    )
    return 0


def _run(options: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    texts = prompt_texts(setting.checkpoint, setting.cache / "data")
    found: dict[tuple[int, int], list[Figures]] = {}
    for number in range(options.rounds):
        # Every other round backwards: no delay always comes after the same one.
        for delay in options.delays if number % 2 == 0 else reversed(options.delays):
            peer = TritonGrpc(setting, options.weights, options.engine, queue_delay_us=delay)
            try:
                peer.prepare()
                peer.start()
                for users in (1, 8, 32):
                    figures = figures_of(peer.measure(make_items(texts, max(8, users)), users))
                    found.setdefault((delay, users), []).append(figures)
                    tell(
                        f"delay {delay} us, c={users}: {figures.tokens_per_second:.1f} tokens/s,"
                        f" TTFT {1e3 * figures.ttft_p50:.1f} ms"
                    )
            finally:
                peer.stop()
    return [
        {
            "delay_us": delay,
            "concurrency": users,
            "tokens_per_second": round(statistics.median(one.tokens_per_second for one in figures), 2),
            "ttft_p50_ms": round(1e3 * statistics.median(one.ttft_p50 for one in figures), 2),
        }
        for (delay, users), figures in sorted(found.items())
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batcher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--engine", choices=("torch", "openvino", "onnx"), default="openvino", help="what computes")
    add("--weights", default="int8", help="their precision")
    add(
        "--delays",
        type=_numbers,
        default=[0, 1000, 10000],
        metavar="US,US",
        help="queue delays, microseconds",
    )
    add("--rounds", type=int, default=3, metavar="N", help="interleaved rounds (default 3)")
    add("--checkpoint", type=Path, help="another checkpoint with a manifest (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None


if __name__ == "__main__":
    sys.exit(main())
