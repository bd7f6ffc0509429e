"""How long the torch engine reads a prompt, by its length, and what each of its fast paths is worth.

  python -m benchmarks.prefill                        some minutes on two cores
  python -m benchmarks.prefill --tokens 512,4096 --rounds 1

The engine is loaded as it is served, and again with fast paths left out; all read the same prompts in turns,
alone, in pieces of at most 512 tokens, and of 16, as a long prompt is cut among running streams. Times are
medians over the rounds. What is inside linear layers and attention is measured once more, under torch's
profiler. Results go to benchmarks/results/prefill.json and prefill.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.engine_page import add_engine_options, circumstances, publish, where_made
from benchmarks.fast_paths import without
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

__all__ = ["ENGINES", "main", "measure", "render"]

ENGINES = (
    "as served",
    "attention by PyTorch",
    "nothing compiled: oneDNN and PyTorch's operators",
    "nothing of it: as transformers computes",
)
"""Of ``fast_paths.VARIATIONS``, those that a prompt is read differently by."""

_PIECES = (512, 16)
_LONGEST = 8192


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        with make_setting(options.checkpoint, options.precision, threads=options.threads) as setting:
            floors = measure_floors(setting.threads, setting.precision)
            config = EngineConfig(
                weights=setting.precision, kv_dtype=setting.precision, slots=1,
                max_context=max(options.tokens) + 1, threads=setting.threads, device="cpu",
            )  # fmt: skip
            cells = measure(setting.checkpoint, config, options.tokens, options.rounds)
    except TrimaranError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results = {**circumstances(floors, config, options.rounds), "pieces": cells}
    publish(results, render(results), options.output, "prefill")
    return 0


def measure(
    checkpoint: Path, config: EngineConfig, tokens: Sequence[int], rounds: int
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Return milliseconds: tokens of a piece -> engine -> tokens -> ``whole``, ``linear``, ``attention``.

    Args:
        checkpoint: with a manifest.
        config: of the torch engine.
        tokens: lengths of prompts; those that are one piece are left out of the smaller pieces.
        rounds: how often the engines take turns.
    """
    manifest = read_manifest(checkpoint)
    results: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for piece in _PIECES:
        lengths = [length for length in tokens if piece == max(_PIECES) or length > piece]
        if not lengths:
            continue
        engines: dict[str, Engine] = {}
        for name in ENGINES:
            with without(name):
                engines[name] = load_engine(checkpoint, replace(config, prefill_chunk=piece), manifest)
        seconds: dict[tuple[str, int], list[float]] = {}
        for turn in range(rounds):
            for name, engine in engines.items():
                with without(name):
                    for length in lengths:
                        seconds.setdefault((name, length), []).append(_read(engine, length))
            tell(f"pieces of {piece}: round {turn + 1} of {rounds}")
        results[str(piece)] = {}
        for name, engine in engines.items():
            cells = results[str(piece)][name] = {}
            with without(name):
                for length in lengths:
                    inside = seconds_inside(partial(_read, engine, length))
                    found = {"whole": median(seconds[name, length]), **inside}
                    cells[str(length)] = {part: round(1e3 * value, 2) for part, value in found.items()}
        engines.clear()
    return results


def _read(engine: Engine, tokens: int) -> float:
    """Return the seconds until the first token after a prompt of so many."""
    prompt = [100 + number * 7919 % 200 for number in range(tokens)]
    start = time.perf_counter()
    engine.submit(GenerationRequest(prompt, SamplingParameters(max_tokens=1, ignore_eos=True)))
    while True:
        for event in engine.step():
            if event.error is not None:
                raise event.error
            if event.token_ids:
                return time.perf_counter() - start


def render(results: Mapping[str, Any]) -> str:
    """Return the page of ``results``."""
    lines = [
        "# Reading a prompt by the torch engine",
        "",
        f"Made by `python -m benchmarks.prefill`. {where_made(results)} Milliseconds to the first "
        f"token of a prompt alone, medians over {results['rounds']} rounds.",
    ]
    for piece, engines in results["pieces"].items():
        served = engines[ENGINES[0]]
        lines += [
            "",
            f"## In pieces of at most {piece} tokens",
            "",
            "| prompt tokens | engine | whole | linear layers | attention | of the served |",
            "|---|---|---|---|---|---|",
        ]
        for length in served:
            for name, cells in engines.items():
                cell = cells[length]
                parts = " | ".join(f"{cell[part]:.0f}" for part in ("whole", *PARTS))
                lines.append(
                    f"| {length} | {name} | {parts} | {cell['whole'] / served[length]['whole']:.2f} |"
                )
    return "\n".join(lines) + "\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prefill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--tokens", type=numbers(most=_LONGEST), default=[64, 256, 1024, 2048], metavar="64,256,1024,2048",
        help="lengths of prompts")  # fmt: skip
    add_engine_options(parser, rounds=3)
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; accepted: at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
