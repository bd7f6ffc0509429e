"""What a run on a mixture of experts needs beside the usual: which routers to train, trainer, callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from checkpoints.errors import ConfigError
from checkpoints.routers import find_routers
from training.config import TrainConfig
from training.methods.registry import method_traits
from training.moe.callback import ExpertLog
from training.moe.config import MoeSettings
from training.moe.statistics import ExpertStatistics
from training.moe.trainer import MoeTrainer
from training.moe.warmup import RouterWarmup

__all__ = ["MoeRun", "prepare_moe", "trained_routers"]


def trained_routers(model: nn.Module, config: TrainConfig) -> list[str]:
    """Return the names of the routers to train; empty where they stay frozen.

    Raises:
        ConfigError: a setting is given that needs routers, and ``model`` has none.
    """
    routers = find_routers(model)
    if not routers and config.moe != MoeSettings():
        raise ConfigError(
            "settings under moe are given, but this model has no routers: it is dense, or its experts are "
            "not of the form that transformers 5 gives them; leave moe out"
        )
    whole = method_traits(config.method).result == "checkpoint"
    mode = config.moe.router or ("trainable" if whole else "frozen")
    return [] if mode == "frozen" else [router.name for router in routers]


@dataclass(frozen=True)
class MoeRun:
    """A run's trainer and callbacks."""

    callbacks: list[TrainerCallback]
    arguments: dict[str, Any]
    """Of ``MoeTrainer``, beside the Trainer's own."""

    @property
    def trainer_class(self) -> type[MoeTrainer]:
        """What trains."""
        return MoeTrainer


def prepare_moe(model: nn.Module, settings: MoeSettings, rows: Path, plot: Path) -> MoeRun | None:
    """Return what the run needs, or None for a dense model.

    Args:
        model: with the method's trainable weights on it.
        settings: see ``MoeSettings``.
        rows: ``experts.jsonl`` of the run.
        plot: ``experts.png``.
    """
    routers = find_routers(model)
    if not routers:
        return None
    trained = [
        parameter
        for router in routers
        for module in router.modules
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    warmup = RouterWarmup(trained, settings.warmup_share) if settings.router == "warmup" else None
    statistics = ExpertStatistics()
    log = ExpertLog(statistics, rows, plot, lambda: warmup.released if warmup else bool(trained))
    callbacks: list[TrainerCallback] = [warmup, log] if warmup else [log]
    return MoeRun(callbacks, {"routers": routers, "moe": settings, "statistics": statistics})
