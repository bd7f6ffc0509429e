"""How Triton's dynamic batcher should be set in front of an engine that batches in flight.

  python -m benchmarks.batcher
  python -m benchmarks.batcher --engine torch --weights bf16 --delays 0,1000,10000 --batch-sizes 1,32

The same workload through Triton with each queue delay, and with other limits of a batch at the default
delay; rounds interleaved. Results go to benchmarks/results/batcher.json.
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
from benchmarks.options import numbers
from benchmarks.preparation import make_setting, tell
from benchmarks.prompts import prompt_texts
from benchmarks.serving_peers.triton import TritonGrpc
from benchmarks.setting import Setting
from benchmarks.traces import Figures, figures_of
from benchmarks.workload import make_items
from checkpoints.errors import TrimaranError
from serving.config import ExportConfig

__all__ = ["main", "settings_of"]

Setup = tuple[int, int]
"""Queue delay in microseconds, and the largest batch."""


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
    name = "{delay_us}us,b{max_batch_size}@c{concurrency}"
    print(json.dumps({name.format(**row): row["tokens_per_second"] for row in rows}))
    return 0


def settings_of(delays: Sequence[int], batch_sizes: Sequence[int]) -> list[Setup]:
    """Return what is compared: each delay with the default batch, each batch with the default delay."""
    delay, size = ExportConfig.queue_delay_us, ExportConfig.max_batch_size
    return list(dict.fromkeys([*((one, size) for one in delays), *((delay, one) for one in batch_sizes)]))


def _run(options: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    texts = prompt_texts(setting.checkpoint, setting.cache / "data")
    found: dict[tuple[Setup, int], list[Figures]] = {}
    setups = settings_of(options.delays, options.batch_sizes)
    for number in range(options.rounds):
        # Every other round backwards: no setting always comes after the same one.
        for setup in setups if number % 2 == 0 else reversed(setups):
            changes = {"queue_delay_us": setup[0], "max_batch_size": setup[1]}
            peer = TritonGrpc(setting, options.weights, options.engine, **changes)
            try:
                peer.prepare()
                peer.start()
                for users in (1, 8, 32):
                    figures = figures_of(peer.measure(make_items(texts, max(8, users)), users))
                    found.setdefault((setup, users), []).append(figures)
                    tell(
                        f"delay {setup[0]} us, batches up to {setup[1]}, c={users}:"
                        f" {figures.tokens_per_second:.1f} tokens/s, TTFT {1e3 * figures.ttft_p50:.1f} ms"
                    )
            finally:
                peer.stop()
    return [
        {
            "delay_us": delay,
            "max_batch_size": size,
            "concurrency": users,
            "tokens_per_second": round(statistics.median(one.tokens_per_second for one in figures), 2),
            "ttft_p50_ms": round(1e3 * statistics.median(one.ttft_p50 for one in figures), 2),
        }
        for ((delay, size), users), figures in sorted(found.items())
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
        type=numbers(least=0),
        default=[0, 1000, 10000],
        metavar="US,US",
        help="queue delays, microseconds",
    )
    add(
        "--batch-sizes",
        type=numbers(),
        default=[1, 32],
        metavar="N,N",
        help="largest batches, with the default delay",
    )
    add("--rounds", type=int, default=3, metavar="N", help="interleaved rounds (default 3)")
    add("--checkpoint", type=Path, help="another checkpoint with a manifest (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
