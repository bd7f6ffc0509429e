"""The output folder: whole or not at all, and never in the place of something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoints.atomic import atomic_directory
from checkpoints.errors import DeployError
from trimaran.deploy.config import DeployConfig

__all__ = ["MAIN_FILES", "MARK", "output_folder"]

MARK = "# Written by `trimaran deploy"
"""How the main file of each folder begins."""

MAIN_FILES = {"compose": ".env", "helm": "values.yaml"}


@contextmanager
def output_folder(config: DeployConfig) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``config.folder``.

    Raises:
        DeployError: there is something that must not be replaced.
        CheckpointError: it cannot be written.
    """
    folder = config.folder.absolute()
    if folder.exists():
        _check_replaceable(folder, config)
    with atomic_directory(folder, replace=True) as temporary:
        yield temporary


def _check_replaceable(folder: Path, config: DeployConfig) -> None:
    if not folder.is_dir():
        raise DeployError(f"output is '{config.folder}', which is a file; accepted: a new or empty folder")
    if not any(folder.iterdir()):
        return
    if not config.overwrite:
        raise DeployError(
            f"output is '{config.folder}', which exists and is not empty; give another --output, or "
            "replace it with --overwrite"
        )
    main = folder / MAIN_FILES[config.target]
    if not main.is_file() or not main.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise DeployError(
            f"output is '{config.folder}', which `trimaran deploy {config.target}` did not write, so "
            "--overwrite does not replace it; give another --output"
        )
