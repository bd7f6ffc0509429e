"""How one engine scales: with concurrency, prompt length, output length and instances; what a step costs.

Requests of equal lengths are sent together, so each point has one batch size. From all of them the time
of a decode step is fitted (fixed + per row + per position of context) and held against the least this
machine can do. Everything is measured in process but the instances, which are Triton's.

  python -m benchmarks.scaling                            the torch engine
  python -m benchmarks.scaling --engine openvino --weights int8
  python -m benchmarks.scaling --longest 512 --widest 8   a smaller sweep

Results go to benchmarks/results/scaling-ENGINE-WEIGHTS.{json,png}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.machine import machine_facts, measure_floors
from benchmarks.plot_scaling import plot_scaling
from benchmarks.preparation import default_precision, make_setting, tell
from benchmarks.prompts import prompt_texts
from benchmarks.serving_peers.inprocess import InProcess
from benchmarks.serving_peers.triton import TritonGrpc
from benchmarks.setting import Setting
from benchmarks.step_time import Observation, StepTime, fit_step_time, floor_of, observe_wave
from benchmarks.traces import figures_of
from benchmarks.waves import equal_items
from checkpoints.errors import TrimaranError

__all__ = ["main"]

_PROMPT, _OUTPUT = 64, 128
_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5, "nf4": 0.5}


class Sweep:
    """Measures points of one engine and keeps what they show of a step's time.

    Args:
        setting: of the run.
        engine: name of the engine.
        weights: precision of its weights.
    """

    def __init__(self, setting: Setting, engine: str, weights: str) -> None:
        self._setting, self._engine, self._weights = setting, engine, weights
        self._texts = prompt_texts(setting.checkpoint, setting.cache / "data")
        self.observations: list[Observation] = []

    def concurrency(self, widest: int) -> list[dict[str, Any]]:
        """Equal requests at 1, 2, 4, ... ``widest`` at once."""
        points = [(users, _PROMPT, _OUTPUT) for users in _doubling(1, widest)]
        return self._points(replace(self._setting, slots=widest, max_context=256), points)

    def prompt_length(self, longest: int) -> list[dict[str, Any]]:
        """Two requests at once, with prompts of 64 tokens to ``longest``."""
        points = [(2, length, 32) for length in _doubling(64, longest)]
        return self._points(replace(self._setting, slots=2, max_context=longest + 64), points)

    def output_length(self) -> list[dict[str, Any]]:
        """Eight requests at once, with outputs of 16 to 256 tokens."""
        points = [(8, _PROMPT, length) for length in (16, 64, 256)]
        return self._points(replace(self._setting, slots=8, max_context=512), points)

    def instances(self, most: int) -> list[dict[str, Any]]:
        """Sixteen requests at once through Triton, the cores shared by 1 to ``most`` instances."""
        points = []
        for count in range(1, most + 1):
            threads = max(1, self._setting.threads // count)
            setting = replace(self._setting, slots=16, max_context=256, threads=threads)
            peer = TritonGrpc(setting, self._weights, self._engine, instances=count)
            (point,) = self._measure(peer, [(16, _PROMPT, _OUTPUT)], observe=False)
            points.append({"instances": count, "threads_each": threads, **point})
        return points

    def _points(self, setting: Setting, points: Sequence[tuple[int, int, int]]) -> list[dict[str, Any]]:
        return self._measure(InProcess(setting, self._weights, self._engine), points, observe=True)

    def _measure(
        self, peer: InProcess, points: Sequence[tuple[int, int, int]], *, observe: bool
    ) -> list[dict[str, Any]]:
        found = []
        try:
            peer.prepare()
            peer.start()
            for users, prompt, output in points:
                traces = peer.measure(equal_items(self._texts, users, prompt, output), users)
                if observe:
                    self.observations += observe_wave(traces, prompt)
                figures = figures_of(traces)
                found.append(
                    {"concurrency": users, "prompt": prompt, "output": output, **_readable(asdict(figures))}
                )
                tell(
                    f"{peer.key} c={users} prompt={prompt} output={output}: "
                    f"{figures.tokens_per_second:.1f} tokens/s, ITL {1e3 * figures.itl_p50:.1f} ms"
                )
        finally:
            peer.stop()
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        with make_setting(options.checkpoint, "auto", threads=options.threads) as setting:
            results = _run(options, setting)
    except (TrimaranError, PeerFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"scaling-{options.engine}-{options.weights}"
    target.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    plot_scaling(results, target.with_suffix(".png"))
    tell(f"written: {target}.json, {target}.png")
    print(json.dumps({"step_time": results["step_time"], "floor": results["floor"]}))
    return 0


def _run(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    from transformers import AutoConfig

    from checkpoints.manifest import read_manifest

    sweep = Sweep(setting, options.engine, options.weights)
    # Packed weights are multiplied in what the processor multiplies fastest.
    floors = measure_floors(setting.threads, "fp32" if options.weights == "fp32" else setting.precision)
    results = {
        "engine": options.engine,
        "weights": options.weights,
        "machine": machine_facts(),
        "threads": setting.threads,
        "floors": floors,
        "concurrency": sweep.concurrency(options.widest),
        "prompt_length": sweep.prompt_length(options.longest),
        "output_length": sweep.output_length(),
        "instances": sweep.instances(options.instances) if options.instances else [],
    }
    model = AutoConfig.from_pretrained(setting.checkpoint)
    head = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    kv_values = 2 * model.num_hidden_layers * model.num_key_value_heads * head
    floor = floor_of(
        read_manifest(setting.checkpoint).parameters,
        _BYTES[options.weights],
        kv_values * (4.0 if options.weights == "fp32" else 2.0),
        floors["read_bytes_per_second"],
        floors["matmul_flops_per_second"],
    )
    return {
        **results,
        "step_time": _microseconds(fit_step_time(sweep.observations)),
        "floor": _microseconds(floor),
        "observations": [asdict(one) for one in sweep.observations],
    }


def _doubling(first: int, last: int) -> list[int]:
    values = [first]
    while values[-1] * 2 <= last:
        values.append(values[-1] * 2)
    return values


def _readable(figures: dict[str, Any]) -> dict[str, Any]:
    times = {f"{name}_ms": round(1e3 * figures[name], 2) for name in ("ttft_p50", "itl_p50", "itl_p99")}
    return {"tokens_per_second": round(figures["tokens_per_second"], 2), **times}


def _microseconds(step: StepTime) -> dict[str, float]:
    return {
        "fixed_us": round(1e6 * step.fixed, 2),
        "per_row_us": round(1e6 * step.per_row, 3),
        "per_context_us": round(1e6 * step.per_context, 4),
        "median_error": round(step.median_error, 4),
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--engine", choices=("torch", "openvino", "onnx"), default="torch", help="what computes")
    add("--weights", choices=tuple(_BYTES), default=default_precision(), help="their precision")
    add("--widest", type=int, default=64, metavar="N", help="largest concurrency (default 64)")
    add("--longest", type=int, default=4096, metavar="N", help="longest prompt, tokens (default 4096)")
    add("--instances", type=int, default=2, metavar="N", help="most Triton instances; 0 leaves them out")
    add("--threads", type=int, help="math threads of the engine (default: the cores)")
    add("--checkpoint", type=Path, help="another checkpoint with a manifest (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
