"""``--up`` and ``--down``: compose starts and stops the containers, the engine's API says how they are."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from checkpoints.errors import DeployError
from checkpoints.progress import progress

__all__ = ["start", "stop"]

logger = logging.getLogger(__name__)

_LOG_LINES = 30
_POLL_SECONDS = 1.0
_SETTLE_SECONDS = 3.0
_ENGINE_SECONDS = 30


def start(
    folder: Path,
    *,
    build: bool,
    timeout: float,
    labels: Mapping[str, str] | None = None,
    services: Sequence[str] = (),
    busy_ports: Sequence[tuple[str, int]] = (),
) -> None:
    """Start the deployment in ``folder``; return when the model is healthy and the other containers run.

    Args:
        folder: as ``write_compose`` left it.
        build: build the serving image first; otherwise it must be there.
        timeout: seconds until the model must be healthy, building excluded.
        labels: variables of compose.yaml for the labels of the image; our own environment's win. Only the
            build gets them: what `up` is given by hand later must be the same as here.
        services: what to start besides ``triton``; by default every service without a profile.
        busy_ports: names and numbers of ports that are taken, an error unless this deployment runs already.

    Raises:
        DeployError: no engine answers, compose fails, the image is missing, or a container does not come
            up; the last lines of its log are in the message.
    """
    with _engine() as (client, host):
        compose = _Compose(folder, host)
        if build:
            compose.run("build", "triton", variables=labels)
        else:
            _check_image(client, compose.serving_image())
        before = compose.containers("triton")
        if busy_ports and not before:
            taken = ", ".join(f"{field} {port}" for field, port in busy_ports)
            options = ", ".join(f"--{field.replace('_', '-')}" for field, _ in busy_ports)
            raise DeployError(
                f"in use on this machine: {taken}; choose others with {options} (and --overwrite)"
            )
        compose.run("up", "-d", "--no-build", "triton")
        started = compose.containers("triton")
        if not started:
            raise DeployError(f"compose started no container for the service triton of {folder}")
        _watch(client, started[-1], timeout, fresh=started[-1] not in before)
        compose.run("up", "-d", "--no-build", *(("triton", *services) if services else ()))
        time.sleep(_SETTLE_SECONDS)
        # Without names there would also be what a command with a profile left, and that may have ended.
        for identifier in compose.containers(*(("triton", *services) if services else compose.services())):
            _check_running(client, identifier)


def stop(folder: Path) -> None:
    """Stop the deployment in ``folder`` and remove its containers; volumes and images stay.

    Raises:
        DeployError: there is no deployment in ``folder``, no engine answers, or compose fails.
    """
    if not (folder / "compose.yaml").is_file():
        raise DeployError(
            f"output is '{folder}', which holds no compose.yaml; accepted: what "
            "`trimaran deploy compose` wrote"
        )
    with _engine() as (_, host):
        _Compose(folder, host).run("--profile", "loadtest", "--profile", "locust", "down")


@contextmanager
def _engine() -> Iterator[tuple[Any, str]]:
    """Yield a client of the Docker engine, and the engine's address."""
    import docker
    from docker.errors import DockerException

    host = _address()
    remedy = "start Docker (or Podman with its API socket), or set DOCKER_HOST to where one listens"
    try:
        socket = Path(host.removeprefix("unix://"))
        if host.startswith("unix://") and not socket.exists():
            raise DeployError(f"no container engine listens at {host}; {remedy}")
        if "DOCKER_HOST" in os.environ:  # with the variables for TLS that belong to it
            client = docker.from_env(timeout=_ENGINE_SECONDS)
        else:
            client = docker.DockerClient(base_url=host, timeout=_ENGINE_SECONDS)
    except DockerException as error:
        raise DeployError(f"the container engine at {host} does not answer ({error}); {remedy}") from error
    try:
        client.ping()
        yield client, host
    except DockerException as error:
        raise DeployError(f"the container engine at {host} failed: {error}; {remedy}") from error
    finally:
        client.close()


def _address() -> str:
    """Return where the engine is: as the variable says, else as the `docker` program would find it."""
    if given := os.environ.get("DOCKER_HOST"):
        return given
    from docker.context import ContextAPI

    try:
        found = ContextAPI.get_current_context()
        host = getattr(found, "Host", None)
    except Exception as error:  # a broken ~/.docker/config.json, in any of many ways
        logger.debug("docker context: %s", error)
        host = None
    return str(host or "unix:///var/run/docker.sock").replace("http+unix://", "unix://")


@dataclass(frozen=True)
class _Compose:
    """Docker Compose on one folder."""

    folder: Path
    host: str

    def run(self, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
        """Run a command of compose; its output goes to ours."""
        done = self._call(arguments, capture=False, variables=variables)
        if done.returncode:
            raise DeployError(
                f"`{' '.join(done.args)}` in {self.folder} ended with {done.returncode}; "
                "its messages are above"
            )

    def containers(self, *services: str) -> list[str]:
        """Ids of the containers there are, running or not; Compose v2 needs -a for those that are not."""
        return self._ask("ps", "-a", "-q", *services).split()

    def services(self) -> list[str]:
        """Names of the services without a profile: what `up` starts by default."""
        # `config --services` of Compose v1 names those with a profile, too.
        return [name for name, service in self._config().items() if not service.get("profiles")]

    def serving_image(self) -> str:
        """Name of the image that the service triton runs."""
        image: str = self._config()["triton"]["image"]
        return image

    def _config(self) -> dict[str, Any]:
        services: dict[str, Any] = yaml.safe_load(self._ask("config"))["services"]
        return services

    def _ask(self, *arguments: str) -> str:
        done = self._call(arguments, capture=True)
        if done.returncode:
            raise DeployError(f"`{' '.join(done.args)}` in {self.folder}: {done.stderr.strip()}")
        return done.stdout

    def _call(
        self, arguments: Sequence[str], *, capture: bool, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*_program(), *arguments],
            cwd=self.folder,
            # Compose v1 knows no contexts.
            env={**(variables or {}), **os.environ, "DOCKER_HOST": self.host},
            stdin=subprocess.DEVNULL,
            capture_output=capture,
            text=True,
            check=False,
        )


def _program() -> list[str]:
    if shutil.which("docker"):
        two = subprocess.run(
            ["docker", "compose", "version"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if two.returncode == 0:
            return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise DeployError(
        "neither `docker compose` nor `docker-compose` is installed; install Docker Compose 1.29 or newer"
    )


def _check_image(client: Any, image: str) -> None:
    from docker.errors import ImageNotFound

    try:
        client.images.get(image)
    except ImageNotFound as error:
        raise DeployError(
            f"image {image} is not here: `docker pull {image}`, or give another one with --image, or a clone "
            "of Trimaran to build it from with --build-context"
        ) from error


def _watch(client: Any, identifier: str, timeout: float, *, fresh: bool) -> None:
    """Return when the container is healthy; restarts before this count only if it is ``fresh``."""
    from docker.errors import NotFound

    deadline = time.monotonic() + timeout
    before = 0 if fresh else None
    with progress(counts=False) as bar:
        task = bar.add_task("model is starting", total=None, note="")
        while True:
            try:
                container = client.containers.get(identifier)
            except NotFound as error:
                raise DeployError(
                    f"the container of triton was removed while it started ({identifier[:12]})"
                ) from error
            state, restarts = container.attrs["State"], container.attrs.get("RestartCount", 0)
            before = restarts if before is None else before
            health = state.get("Health", {}).get("Status", state["Status"])
            bar.update(task, description=f"model is {health}")
            if health == "healthy":
                return
            if restarts > before:
                raise _failure(container, "ended and was started again")
            if health in ("unhealthy", "exited", "dead"):
                raise _failure(container, f"is {health}")
            if time.monotonic() > deadline:
                raise _failure(container, f"is not healthy after {timeout:.0f} s (--start-seconds)")
            time.sleep(_POLL_SECONDS)


def _check_running(client: Any, identifier: str) -> None:
    container = client.containers.get(identifier)
    labels = container.attrs.get("Config", {}).get("Labels") or {}
    if labels.get("com.docker.compose.oneoff") == "True":  # a load test of `run`, which may have ended
        return
    if container.status != "running":
        raise _failure(container, f"is {container.status}")


def _failure(container: Any, what: str) -> DeployError:
    said = container.logs(tail=_LOG_LINES).decode("utf-8", "replace").strip()
    state = container.attrs["State"]
    checks = state.get("Health", {}).get("Log") or [{}]
    reason = str(checks[-1].get("Output") or state.get("Error") or "").strip()
    return DeployError(
        f"{container.name} {what}{f' ({reason})' if reason else ''}; it was left as it is. "
        f"Its log ends with:\n{said}"
    )
