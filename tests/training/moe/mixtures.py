"""Tiny runs on mixtures of experts, and what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import training.run as run
from training.config import TrainConfig

IDS = torch.randint(5, 250, (2, 24), generator=torch.Generator().manual_seed(7))


def expert_log(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "experts.jsonl").read_text().splitlines()]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def routers_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The routers' weights, by name in the model; every mixture here calls its router ``mlp.gate``."""
    plain = {name.removeprefix("base_model.model."): weight for name, weight in weights.items()}
    return {name: weight for name, weight in plain.items() if name.endswith(".mlp.gate.weight")}


class AfterSteps(TrainerCallback):
    """Calls ``act(step, model, control)`` at the end of each step, before a state is saved."""

    def __init__(self, act: Callable[[int, Any, Any], None]) -> None:
        self._act = act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._act(state.global_step, kwargs["model"], control)


def train_and(config: TrainConfig, act: Callable[[int, Any, Any], None]) -> Path:
    """Train with ``AfterSteps(act)``."""
    build = run.build_trainer  # type: ignore[attr-defined]

    def build_more(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        trainer.add_callback(AfterSteps(act))
        return trainer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "build_trainer", build_more)
        return run.train(config)


def train_until(config: TrainConfig, step: int) -> None:
    """Train and be cut off at the end of ``step``; the last state is of the step before."""

    def stop(now: int, model: Any, control: Any) -> None:
        if now == step:
            raise KeyboardInterrupt
        control.should_save = now == step - 1

    with pytest.raises(KeyboardInterrupt):
        train_and(config, stop)
