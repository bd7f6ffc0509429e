"""Where a decode step of the torch engine goes, and what each of its fast paths is worth.

  python -m benchmarks.decode_step                        about 3 minutes on two cores
  python -m benchmarks.decode_step --rows 1,4,16,32 --rounds 3

The engine is loaded as it is served, and again with a fast path left out. All run equal requests in
turns; a step is the median over the rounds. What is inside linear layers and attention is measured in
further steps, under torch's profiler; everything else is the rest of a step without it. Results go to
benchmarks/results/decode-step.json and decode-step.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.engine_page import add_engine_options, circumstances, publish, where_made
from benchmarks.fast_paths import VARIATIONS, without
from benchmarks.machine import measure_floors
from benchmarks.options import numbers
from benchmarks.preparation import make_setting, tell
from benchmarks.step_parts import PARTS, seconds_inside
from checkpoints.errors import TrimaranError
from checkpoints.manifest import read_manifest
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.torch.loading import load_engine

__all__ = ["main", "measure", "render"]

_PROMPT = 64
_CONTEXT = 256
_SKIPPED = 3
"""Steps of a new batch that are not measured: the first allocate."""

_PROFILED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        with make_setting(options.checkpoint, options.precision, threads=options.threads) as setting:
            floors = measure_floors(setting.threads, setting.precision)
            config = EngineConfig(
                weights=setting.precision, kv_dtype=setting.precision, slots=max(options.rows),
                max_context=_CONTEXT, threads=setting.threads, device="cpu",
            )  # fmt: skip
            cells = measure(setting.checkpoint, config, options.rows, options.steps, options.rounds)
    except TrimaranError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results = {**circumstances(floors, config, options.rounds), "variations": cells}
    publish(results, render(results), options.output, "decode-step")
    return 0


def measure(
    checkpoint: Path, config: EngineConfig, rows: Sequence[int], steps: int, rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return milliseconds: variation -> rows -> ``step``, ``linear``, ``attention``, ``rest``.

    Args:
        checkpoint: with a manifest.
        config: of the torch engine.
        rows: batches.
        steps: of a batch that are measured in each round.
        rounds: how often the variations take turns.
    """
    manifest = read_manifest(checkpoint)
    engines: dict[str, Engine] = {}
    for name in VARIATIONS:
        with without(name):
            engines[name] = load_engine(checkpoint, config, manifest)
        tell(f"loaded: {name}")
    seconds: dict[tuple[str, int], list[float]] = {}
    inside: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, engine in engines.items():
            with without(name):
                for count in rows:
                    found, parts = _run_batch(engine, count, steps)
                    seconds.setdefault((name, count), []).extend(found)
                    inside.setdefault((name, count), []).append(parts)
            tell(f"measured: {name}")
    return {
        name: {str(count): _cell(seconds[name, count], inside[name, count]) for count in rows}
        for name in engines
    }


def _run_batch(engine: Engine, rows: int, steps: int) -> tuple[list[float], dict[str, float]]:
    """Return seconds of each step of a whole batch, and seconds of a step inside each part."""
    sampling = SamplingParameters(max_tokens=_CONTEXT - _PROMPT, ignore_eos=True)
    handles = [
        engine.submit(GenerationRequest([100 + row] * _PROMPT, sampling)) for row in range(rows)
    ]  # fmt: skip
    begun: set[int] = set()
    while len(begun) < rows:
        begun |= {event.handle for event in engine.step() if event.token_ids}
    for _ in range(_SKIPPED):
        engine.step()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        seconds.append(time.perf_counter() - start)

    def profiled() -> None:
        for _ in range(_PROFILED):
            engine.step()

    parts = seconds_inside(profiled)
    for handle in handles:
        engine.cancel(handle)
    return seconds, {name: value / _PROFILED for name, value in parts.items()}


def _cell(seconds: Sequence[float], inside: Sequence[Mapping[str, float]]) -> dict[str, float]:
    step = median(seconds)
    parts = {name: median(one[name] for one in inside) for name in PARTS}
    rest = max(0.0, step - sum(parts.values()))
    return {
        name: round(1e3 * value, 2) for name, value in {"step": step, **parts, "rest": rest}.items()
    }  # fmt: skip


def render(results: Mapping[str, Any]) -> str:
    """Return the page of ``results``."""
    variations = results["variations"]
    served = variations[next(iter(VARIATIONS))]
    lines = [
        "# A decode step of the torch engine",
        "",
        f"Made by `python -m benchmarks.decode_step`. {where_made(results)} Milliseconds, medians over "
        f"{results['rounds']} rounds; rows of {_PROMPT} prompt tokens and what they generated since.",
        "",
        "| rows | engine | whole step | linear layers | attention | everything else | of the served |",
        "|---|---|---|---|---|---|---|",
    ]
    for rows in served:
        for name, cells in variations.items():
            cell = cells[rows]
            lines.append(
                f"| {rows} | {name} | {cell['step']:.1f} | {cell['linear']:.1f} | {cell['attention']:.1f} "
                f"| {cell['rest']:.1f} | {cell['step'] / served[rows]['step']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", type=numbers(most=64), default=[1, 8, 32], metavar="1,8,32", help="requests in the batch")
    add("--steps", type=int, default=20, help="steps of each batch and round (default 20)")
    add_engine_options(parser, rounds=2)
    options = parser.parse_args(arguments)
    most = _CONTEXT - _PROMPT - 2 * max(options.rows) - _SKIPPED - _PROFILED
    if not 1 <= options.steps <= most:
        parser.error(f"--steps is {options.steps}; accepted with these rows: 1 to {most}")
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; accepted: at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
