"""The compose files, the chart and the monitoring files: at a clone's root, or inside the wheel."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from checkpoints.errors import DeployError

__all__ = ["CHART", "COMPOSE_FILES", "copy_assets", "find_assets", "find_clone"]

CHART = "deploy/helm/trimaran"

COMPOSE_FILES = (
    "compose.yaml",
    "compose.gpu.yaml",
    "deploy/prometheus/prometheus.yml",
    "deploy/prometheus/rules",
    "deploy/grafana/dashboards",
    "deploy/grafana/provisioning",
)

_PACKAGE = Path(__file__).resolve().parent
_PLACES = (_PACKAGE.parents[1], _PACKAGE / "assets")


def find_assets() -> Path:
    """Return the folder that holds ``compose.yaml`` and ``deploy/``.

    Raises:
        DeployError: this installation has none.
    """
    for place in _PLACES:
        if (place / "compose.yaml").is_file():
            return place
    raise DeployError("this installation has no compose.yaml; use a wheel or a clone of the repository")


def find_clone(asked: Path | None) -> Path | None:
    """Return the clone that images are built from: the one asked for, else the one we run from, if any.

    Raises:
        DeployError: ``asked`` holds no Dockerfile.
    """
    if asked is not None:
        if not (asked / "Dockerfile").is_file():
            raise DeployError(
                f"build_context is {str(asked)!r}, which has no Dockerfile; accepted: a clone of Trimaran"
            )
        return asked.resolve()
    root = find_assets()
    return root if (root / "Dockerfile").is_file() else None


def copy_assets(names: Iterable[str], target: Path) -> None:
    """Copy files and folders by name into ``target``, keeping their places."""
    root = find_assets()
    for name in names:
        source, copy = root / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copyfile(source, copy)
