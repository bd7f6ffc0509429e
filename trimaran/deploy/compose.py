"""A folder that docker compose can start: the compose files, and .env with what the model needs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from checkpoints.errors import DeployError
from trimaran.deploy.assets import COMPOSE_FILES, copy_assets, find_clone
from trimaran.deploy.config import PORTS, DeployConfig
from trimaran.deploy.folder import MARK, output_folder
from trimaran.deploy.sizing import Sizing

__all__ = ["IMAGES", "next_commands", "write_compose"]

IMAGES = {False: "trimaran/serve-cpu:0.1.0", True: "trimaran/serve-gpu:0.1.0"}
"""Images of compose.yaml and compose.gpu.yaml: whether there are GPUs -> name."""

_DRAIN_SECONDS = 30


def write_compose(config: DeployConfig, sizing: Sizing) -> Path:
    """Write the folder; return it.

    Raises:
        DeployError: a path cannot be written down for compose, or the folder exists.
        CheckpointError: it cannot be written.
    """
    clone = find_clone(config.build_context)
    with output_folder(config) as folder:
        copy_assets(COMPOSE_FILES, folder)
        if clone is not None:
            _replace(folder, "context: .\n", f"context: {_yaml_text(clone)}\n")
        if sizing.gpus:  # Compose v1 takes a number here, but not from a variable
            _replace(folder, "count: ${TRIMARAN_GPUS:-all}", f"count: {sizing.gpus}")
        (folder / ".env").write_text(_environment(config, sizing), encoding="utf-8")
    return config.folder


def next_commands(config: DeployConfig, sizing: Sizing) -> list[str]:
    """Return what to run next."""
    builds = find_clone(config.build_context) is not None and config.image is None
    image = config.image or IMAGES[sizing.gpus > 0]
    start = [f"cd {config.folder}"]
    if not builds and config.image is None:
        start.append(f"docker image inspect {image}   # no clone to build it from: pull or load it")
    return [
        *start,
        f"docker compose up -d{' --build' if builds else ''}   # docker-compose for Compose v1",
        "docker compose --profile loadtest run --rm loadtest --users 8 --duration 30s",
        "docker compose down",
    ]


def _environment(config: DeployConfig, sizing: Sizing) -> str:
    lines = [
        f"{MARK} compose` for {config.model} version {sizing.version}; compose.yaml has the other variables.",
        f"# {sizing.engine.engine}, {sizing.engine.weights} weights, {sizing.engine.slots} slots of "
        f"{sizing.engine.max_context} tokens.",
    ]
    for name, value, reason in _settings(config, sizing):
        lines += [f"# {reason}", f"{name}={_quoted(name, str(value))}"]
    return "\n".join(lines) + "\n"


def _settings(config: DeployConfig, sizing: Sizing) -> list[tuple[str, str | int, str]]:
    """Return (variable, value, why)."""
    assert config.repository is not None
    settings: list[tuple[str, str | int, str]] = [
        ("TRIMARAN_REPOSITORY", str(config.repository.resolve()), "--repository, mounted read-only"),
        ("TRIMARAN_MODEL", config.model, "--model: what the health check asks for"),
        ("TRIMARAN_MEMORY", f"{sizing.memory_gib}g", sizing.memory_reason),
        ("TRIMARAN_SHM", f"{sizing.shm_gib}g", "256 MiB per instance and version, at least 1 GiB"),
        ("TRIMARAN_CPUS", sizing.cpus, "--cpus" if config.cpus else sizing.cpu_reason),
        ("TRIMARAN_THREADS", sizing.threads, "math threads of each instance"),
        ("TRIMARAN_START_SECONDS", config.start_seconds, "--start-seconds"),
        ("TRIMARAN_EXIT_SECONDS", config.longest_request, "--longest-request"),
        (
            "TRIMARAN_STOP_GRACE",
            f"{config.longest_request + _DRAIN_SECONDS}s",
            f"the line above + {_DRAIN_SECONDS} s, so that requests in flight end before the kill",
        ),
    ]
    if config.image is not None:
        name = "TRIMARAN_GPU_IMAGE" if sizing.gpus else "TRIMARAN_IMAGE"
        settings.append((name, config.image, "--image"))
    if sizing.gpus:
        files = "compose.yaml:compose.gpu.yaml"
        settings.append(("COMPOSE_FILE", files, f"both, for {sizing.gpus} GPU(s): --gpus or config.pbtxt"))
    for field in PORTS:
        settings.append((f"TRIMARAN_{field.upper()}", getattr(config, field), _option(field)))
    return settings


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _quoted(name: str, value: str) -> str:
    """Return ``value`` for .env, as Compose v1 and v2 both read it."""
    if name == "TRIMARAN_REPOSITORY" and ":" in value:
        raise DeployError(
            f"repository is {value!r}; compose splits a volume at ':', so move it to a path without one"
        )
    if re.fullmatch(r"[\w./:@+,-]+", value, re.ASCII):
        return value
    if re.search(r"['\\\n\r]", value):
        raise DeployError(
            f"{name} would be {value!r}; accepted: text without quotes, backslashes and line breaks, "
            "which .env cannot hold for every version of compose"
        )
    return f"'{value}'"


def _replace(folder: Path, old: str, new: str) -> None:
    """Write ``new`` for ``old`` in the compose files of ``folder``, where a variable of .env cannot stand."""
    for path in folder.glob("compose*.yaml"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new), encoding="utf-8")


def _yaml_text(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False).replace("$", "$$")
