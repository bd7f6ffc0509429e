"""A folder that docker compose can start: the compose files, and .env with what the model needs."""

from __future__ import annotations

from pathlib import Path

from checkpoints.atomic import atomic_directory
from trimaran.deploy.assets import copy_assets, find_assets
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.sizing import Sizing

__all__ = ["commands", "write_compose"]

_DRAIN_SECONDS = 30
_FILES = ["compose.yaml", "compose.gpu.yaml", "deploy/prometheus", "deploy/grafana"]


def write_compose(config: DeployConfig, sizing: Sizing) -> Path:
    """Write the folder; return it.

    Raises:
        CheckpointError: it exists already, or cannot be written.
    """
    root = find_assets()
    with atomic_directory(config.folder, replace=config.overwrite) as folder:
        copy_assets(_FILES, folder)
        text = "".join(f"{name}={value}\n" for name, value in _settings(config, sizing).items())
        note = "# Written by `trimaran deploy compose`; compose.yaml has the other variables.\n"
        if (root / "Dockerfile").is_file():  # a clone: compose builds the images from it
            compose = (folder / "compose.yaml").read_text(encoding="utf-8")
            (folder / "compose.yaml").write_text(
                compose.replace("context: .\n", f"context: {root}\n"), encoding="utf-8"
            )
        (folder / ".env").write_text(note + text, encoding="utf-8")
    return config.folder


def commands(config: DeployConfig, sizing: Sizing) -> list[str]:
    """Return what to run next."""
    gpu = " -f compose.yaml -f compose.gpu.yaml" if sizing.gpus else ""
    return [
        f"cd {config.folder}",
        f"docker compose{gpu} up -d --build      # or docker-compose",
        "docker compose --profile loadtest run --rm loadtest --users 8 --duration 30s",
        "docker compose down",
    ]


def _settings(config: DeployConfig, sizing: Sizing) -> dict[str, str | int]:
    settings: dict[str, str | int] = {
        "TRIMARAN_REPOSITORY": str(config.repository.absolute()),
        "TRIMARAN_MODEL": config.model,
        "TRIMARAN_MEMORY": f"{sizing.memory_gib}g",
        "TRIMARAN_SHM": f"{sizing.shm_gib}g",
        "TRIMARAN_CPUS": sizing.cpus,
        "TRIMARAN_THREADS": max(1, sizing.cpus // sizing.instances),
        "TRIMARAN_EXIT_SECONDS": config.longest_request,
        "TRIMARAN_STOP_GRACE": f"{config.longest_request + _DRAIN_SECONDS}s",
    }
    if config.image is not None:
        settings["TRIMARAN_GPU_IMAGE" if sizing.gpus else "TRIMARAN_IMAGE"] = config.image
    if sizing.gpus:
        settings["TRIMARAN_GPUS"] = sizing.gpus
    return settings
