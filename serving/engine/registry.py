"""The engines there are, by name; each is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from checkpoints.errors import ConfigError
from checkpoints.manifest import Manifest
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine

__all__ = ["ENGINES", "load_engine"]

ENGINES = {"torch": "serving.engine.torch.loading"}
"""Engine name -> module with ``load_engine(checkpoint, config, manifest)``."""


def load_engine(checkpoint: Path, config: EngineConfig, manifest: Manifest) -> Engine:
    """Load ``checkpoint`` in the engine that ``config`` names.

    Raises:
        ConfigError: there is no engine of that name.
    """
    if config.engine not in ENGINES:
        raise ConfigError(f"engine is {config.engine!r}; accepted: {', '.join(sorted(ENGINES))}")
    engine: Engine = import_module(ENGINES[config.engine]).load_engine(checkpoint, config, manifest)
    return engine
