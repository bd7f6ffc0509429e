"""The engines there are, by name; each is imported only when it is asked for.

An engine is a package with two modules: ``loading``, which runs inside Triton and has
``load_engine(checkpoint, config, manifest)``, and ``exporting``, which has an ``EXPORTER``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from checkpoints.errors import ConfigError
from checkpoints.manifest import Manifest
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine
from serving.engine.exporter import Exporter

__all__ = ["ENGINES", "find_exporter", "load_engine"]

ENGINES = {
    "torch": "serving.engine.torch",
    "openvino": "serving.engine.openvino",
    "onnx": "serving.engine.onnx",
}
"""Engine name -> its package."""


def load_engine(checkpoint: Path, config: EngineConfig, manifest: Manifest) -> Engine:
    """Load ``checkpoint`` in the engine that ``config`` names.

    Raises:
        ConfigError: there is no engine of that name.
        CheckpointError, ServingError: the engine cannot load the checkpoint.
    """
    if config.own_process:
        from serving.engine.process.engine import ProcessEngine

        return ProcessEngine(checkpoint, config)
    engine: Engine = import_module(f"{_package(config.engine)}.loading").load_engine(
        checkpoint, config, manifest
    )
    return engine


def find_exporter(engine: str) -> Exporter:
    """Return what exports for ``engine``.

    Raises:
        ConfigError: there is no engine of that name.
    """
    exporter: Exporter = import_module(f"{_package(engine)}.exporting").EXPORTER
    return exporter


def _package(engine: str) -> str:
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}; accepted: {', '.join(sorted(ENGINES))}")
    return ENGINES[engine]
