"""The compose files, the chart and the monitoring files: at a clone's root, or inside the wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

from checkpoints.errors import ConfigError

__all__ = ["copy_assets", "find_assets"]

_PACKAGE = Path(__file__).resolve().parent
_PLACES = (_PACKAGE.parents[1], _PACKAGE / "assets")


def find_assets() -> Path:
    """Return the folder that holds ``compose.yaml`` and ``deploy/``.

    Raises:
        ConfigError: this installation has none.
    """
    for place in _PLACES:
        if (place / "compose.yaml").is_file():
            return place
    raise ConfigError("this installation has no compose.yaml; use a wheel or a clone of the repository")


def copy_assets(names: list[str], target: Path) -> None:
    """Copy files and folders by name into ``target``, keeping their places."""
    root = find_assets()
    for name in names:
        source, copy = root / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "tests", "*.py"))
        else:
            shutil.copyfile(source, copy)
