"""What the pages about the torch engine's fast paths share: options, where they were made, their files."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_facts
from benchmarks.preparation import tell
from checkpoints.atomic import write_text_atomically
from serving.engine.config import EngineConfig

__all__ = ["add_engine_options", "circumstances", "publish", "where_made"]


def add_engine_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Add the options of which engine is measured and how often: ``rounds`` times by default."""
    add = parser.add_argument
    add("--rounds", type=int, default=rounds, help=f"how often the engines take turns (default {rounds})")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto",
        help="auto: bf16 where the processor has it")  # fmt: skip
    add("--threads", type=int, help="math threads (default: the cores)")
    add("--checkpoint", type=Path, help="another checkpoint with a manifest (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip


def circumstances(floors: Mapping[str, float], config: EngineConfig, rounds: int) -> dict[str, Any]:
    """Return what ``where_made`` says, as the results keep it."""
    return {
        "made": time.strftime("%Y-%m-%d"),
        "machine": machine_facts(),
        "floors": floors,
        "precision": config.weights,
        "threads": config.threads,
        "rounds": rounds,
    }


def where_made(results: Mapping[str, Any]) -> str:
    """Return the sentences about the machine: its cores, and how fast it reads and multiplies."""
    machine, floors = results["machine"], results["floors"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {results['threads']} threads, {results['precision']}; "
        f"reads {floors['read_bytes_per_second'] / 1e9:.1f} GB/s, multiplies "
        f"{floors['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s."
    )


def publish(results: Mapping[str, Any], page: str, output: Path, name: str) -> None:
    """Write ``name``.json and ``name``.md to the folder ``output``, and print the page."""
    output.mkdir(parents=True, exist_ok=True)
    write_text_atomically(output / f"{name}.json", json.dumps(results, indent=2) + "\n")
    write_text_atomically(output / f"{name}.md", page)
    print(page)
    tell(f"written: {output}/{name}.json, {name}.md")
