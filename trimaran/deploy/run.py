"""``trimaran deploy``: derive, write, say what was derived, and start it if asked to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from trimaran.deploy import compose, helm
from trimaran.deploy.assets import find_clone
from trimaran.deploy.checks import busy_ports, warnings
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.sizing import Sizing, size
from trimaran.deploy.source import source_labels

__all__ = ["deploy"]

logger = logging.getLogger(__name__)


def deploy(config: DeployConfig, announce: Callable[[str], None]) -> None:
    """Run the command; what a reader should know goes to ``announce``, line by line.

    Raises:
        DeployError: it cannot be written or started.
        CheckpointError, ServingError: a file of the model repository is missing or malformed.
    """
    if config.down:
        from trimaran.deploy.containers import stop

        stop(config.folder)
        announce(f"down: {config.folder}")
        return
    sizing = size(config)
    write, next_commands = (
        (compose.write_compose, compose.next_commands)
        if config.target == "compose"
        else (helm.write_helm, helm.next_commands)
    )
    folder = write(config, sizing)
    for line in _table(sizing):
        announce(line)
    announce(f"written: {folder}")
    for warning in warnings(config, sizing):
        logger.warning("%s", warning)
    if config.up:
        from trimaran.deploy.containers import start

        clone = _clone(config)
        start(
            folder,
            build=clone is not None,
            labels=source_labels(clone) if clone else None,
            timeout=config.start_seconds + 60.0,
            busy_ports=busy_ports(config),
        )
        announce(f"healthy: http://127.0.0.1:{config.http_port}/v2/models/{config.model}/generate")
        announce(f"dashboard: http://127.0.0.1:{config.grafana_port}")
        announce(f"to stop it: trimaran deploy compose --down --output {folder}")
        return
    announce("next:")
    for line in next_commands(config, sizing):
        announce(f"  {line}")


def _clone(config: DeployConfig) -> Path | None:
    """Return what the serving image is built from, None where a ready one is used."""
    return find_clone(config.build_context) if config.image is None else None


def _table(sizing: Sizing) -> list[str]:
    rows = [("", "value", "derived from"), *sizing.rows()]
    name, value = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{row[0]:{name}}  {row[1]:>{value}}  {row[2]}" for row in rows]
