"""``trimaran demo``: every stage in a row on a real model, then one table.

base -> LoRA adapter -> merged -> NF4 -> both exported -> served by Triton, checked against ``generate``,
loaded by Locust. Read :func:`demo` from top to bottom. Each stage leaves its artefact under ``out/demo``;
a run that was cut goes on from the first stage whose artefact is not there or was made from another.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from checkpoints.atomic import write_text_atomically
from checkpoints.errors import ConfigError

__all__ = ["DemoConfig", "demo"]

STAGES = 9
Result = TypeVar("Result")


@dataclass
class DemoConfig:
    """Fine-tune, merge, quantize, export, serve and load-test SmolLM2-135M, and print one table."""

    output: Path = Path("out/demo")
    """Where every stage leaves its artefact."""

    steps: int = 16
    """Optimizer steps of the fine-tuning, over 48 rows of GSM8K."""

    duration: str = "30s"
    """Length of each load test."""

    users: int = 8
    """Simulated users of each load test."""

    fresh: bool = False
    """Start over instead of going on from the first stage that is not done."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps = {self.steps}: must be 1 or more")
        if self.users < 1:
            raise ConfigError(f"users = {self.users}: must be 1 or more")


def demo(config: DemoConfig, announce: Callable[[str], None] = print) -> bool:
    """Run what is not done yet; return whether both endpoints passed their load test and greedy check.

    Args:
        config: sizes and places.
        announce: takes lines for the user.

    Raises:
        ConfigError: the output was made with other settings.
    """
    from trimaran import demo_stages as stage
    from trimaran.demo_data import write_demo_data
    from trimaran.demo_summary import render_summary

    root = config.output.absolute()
    _prepare(root, config)
    step = Steps(announce)
    data = step.run("rows for training and load", write_demo_data, root / "data")
    base = step.run("base model: SmolLM2-135M-Instruct", stage.make_base, root / "base")
    adapter = step.run("fine-tune with LoRA", stage.make_adapter, root / "run", base, data, config.steps)
    merged = step.run("merge adapter and base", stage.make_merged, root / "merged", adapter)
    nf4 = step.run("quantize to NF4", stage.make_nf4, root / "nf4", merged)
    chain = (base, merged, nf4)
    losses = step.run("loss on held-out rows", stage.measure_losses, root / "losses.json", chain, data)
    served = {"llm": merged, "llm-nf4": nf4}
    repository = step.run("export both to a model repository", stage.make_repository, root / "models", served)
    endpoints = [
        step.run(
            f"serve {name}, check its text, load-test it",
            stage.measure_endpoint,
            root / f"loadtest-{name}",
            repository,
            name,
            made,
            data,
            config.users,
            config.duration,
        )
        for name, made in served.items()
    ]
    summary = render_summary(base, adapter, merged, nf4, losses, endpoints)
    write_text_atomically(root / "summary.txt", summary + "\n")
    announce(f"\n{summary}\n")
    for endpoint in endpoints:
        announce(f"report of {endpoint.name}: {endpoint.report}")
    announce(f"this table: {root / 'summary.txt'}")
    announce(f"serve it again: trimaran serve {repository} --models llm")
    return all(endpoint.passed for endpoint in endpoints)


class Steps:
    """Runs stages one after the other and says which, and how long each took."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._number = 0

    def run(self, title: str, stage: Callable[..., Result], artefact: Path, *arguments: Any) -> Result:
        """Run ``stage(artefact, *arguments)``, which finds or makes ``artefact``; return what it returns."""
        self._number += 1
        self._announce(f"[{self._number}/{STAGES}] {title}")
        started = time.monotonic()
        result = stage(artefact, *arguments)
        self._announce(f"      {artefact}  {time.monotonic() - started:.1f} s")
        return result


def _prepare(root: Path, config: DemoConfig) -> None:
    """Remember the settings beside the artefacts; refuse to mix artefacts of different settings."""
    settings = {"steps": config.steps, "duration": config.duration, "users": config.users}
    marker = root / "demo.json"
    if config.fresh and marker.is_file():
        shutil.rmtree(root)
    if marker.is_file():
        found = json.loads(marker.read_text(encoding="utf-8"))
        if found != settings:
            raise ConfigError(
                f"{root} was made with {found}, not {settings}; start over with --fresh, "
                "or name another --output"
            )
        return
    if root.exists() and any(root.iterdir()):
        raise ConfigError(f"{root} is not empty and no demo made it; name another --output")
    root.mkdir(parents=True, exist_ok=True)
    write_text_atomically(marker, json.dumps(settings) + "\n")
