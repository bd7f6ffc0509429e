"""``--up``: compose starts the containers, the engine's API says how they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpoints.errors import ServerError
from checkpoints.progress import progress

__all__ = ["start"]

_LOG_LINES = 30


def start(folder: Path, *, gpu: bool, services: Sequence[str] = (), timeout: float = 900.0) -> None:
    """Build and start the services in ``folder``; return when the server's model is healthy.

    Args:
        folder: as ``write_compose`` left it.
        gpu: whether ``compose.gpu.yaml`` applies.
        services: which to start; by default all without a profile.
        timeout: seconds until the model must be healthy, after the build.

    Raises:
        ServerError: no engine answers, compose fails, or the model does not become healthy; the last lines of
            the server's log are in the message.
    """
    client = _engine()
    compose = [*_compose(), *(("-f", "compose.yaml", "-f", "compose.gpu.yaml") if gpu else ())]
    _run([*compose, "up", "-d", "--build", *services], folder)
    ids = _run([*compose, "ps", "-q", "triton"], folder, quiet=True).split()
    if not ids:
        raise ServerError(f"compose started no container for the service triton in {folder}")
    _wait(client, ids[-1], timeout)


def _engine() -> Any:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        raise ServerError(
            f"no Docker engine answers ({error}); start one, or name it in DOCKER_HOST"
        ) from error
    return client


def _compose() -> list[str]:
    if shutil.which("docker"):
        two = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if two.returncode == 0:
            return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise ServerError("neither `docker compose` nor `docker-compose` is installed; install Docker Compose")


def _run(command: list[str], folder: Path, *, quiet: bool = False) -> str:
    output = subprocess.PIPE if quiet else None
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, text=True, check=False
    )
    if done.returncode:
        raise ServerError(f"`{' '.join(command)}` in {folder} ended with {done.returncode}; see above")
    return done.stdout or ""


def _wait(client: Any, identifier: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    with progress(counts=False) as bar:
        task = bar.add_task("starting", total=None, note="")
        while True:
            container = client.containers.get(identifier)
            state = container.attrs["State"]
            health = state.get("Health", {}).get("Status", state["Status"])
            bar.update(task, description=f"model is {health}", note="")
            if health == "healthy":
                return
            restarted = container.attrs.get("RestartCount", 0)
            if health == "unhealthy" or restarted or time.monotonic() > deadline:
                said = container.logs(tail=_LOG_LINES).decode("utf-8", "replace").strip()
                checks = state.get("Health", {}).get("Log") or [{}]
                reason = str(checks[-1].get("Output", "")).strip() or json.dumps(state.get("Error", ""))
                raise ServerError(f"the server is {health} ({reason}); its log ends with:\n{said}")
            time.sleep(1)
