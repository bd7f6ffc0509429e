"""A Docker engine for the tests: the machine's own where it answers, else one started here for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.compose_tool import compose_v2

__all__ = ["Engine", "EngineMissing", "running_engine"]

_START_SECONDS = 60.0


class EngineMissing(Exception):
    """No engine answers and none can be started; the message is the reason."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers, and how to ask it."""

    host: str
    """Value of ``DOCKER_HOST``."""
    own: bool
    """Whether it was started for the tests: without a bridge, so builds need the host's network."""
    plugins: Path | None = None
    """Value of ``DOCKER_CONFIG``: a folder whose ``cli-plugins`` holds Compose v2 for ``docker compose``."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables for ``docker`` and compose."""
        return {
            **os.environ,
            "DOCKER_HOST": self.host,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            **({} if self.plugins is None else {"DOCKER_CONFIG": str(self.plugins)}),
        }

    def docker(self, *arguments: str, timeout: float = 60, check: bool = True) -> str:
        """Run ``docker``; return what it printed on both streams."""
        return self.run(["docker", *arguments], timeout=timeout, check=check)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = 60,
        check: bool = True,
        cwd: Path | None = None,
        variables: dict[str, str] | None = None,
    ) -> str:
        """Run a command that talks to this engine; return what it printed on both streams."""
        done = subprocess.run(
            list(command),
            env={**self.environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            cwd=cwd,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)[:200]} ended with {done.returncode}:\n{done.stdout[-4000:]}"
            )
        return done.stdout


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """Yield an engine; one that was started here ends with the block, and its data go with ``folder``.

    Raises:
        EngineMissing: neither is to be had.
    """
    if shutil.which("docker") is None:
        raise EngineMissing("docker is not installed")
    given = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if _answers(given):
        yield Engine(given, own=False)
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise EngineMissing("no Docker engine answers, and starting one needs root and dockerd")
    socket = folder / "docker.sock"
    host = f"unix://{socket}"
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                "dockerd",
                *(
                    "--bridge=none",
                    "--iptables=false",
                    "--ip6tables=false",
                    "--ip-forward=false",
                    "--ip-masq=false",
                ),
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'docker.pid'}",
                f"--host={host}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(host):
            if daemon.poll() is not None or time.monotonic() > deadline:
                last = (folder / "dockerd.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise EngineMissing(f"dockerd does not start: {' '.join(last)}")
            time.sleep(0.2)
        yield Engine(host, own=True, plugins=_plugins(folder))
    finally:
        daemon.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(30)
        daemon.kill()
        daemon.wait()
        # It leaves its network namespaces mounted, and nobody could clear the folder.
        for namespace in (folder / "exec" / "netns").glob("*"):
            subprocess.run(["umount", "--lazy", str(namespace)], capture_output=True, check=False)


def _plugins(folder: Path) -> Path | None:
    """Return a configuration folder for ``docker`` with the unpacked Compose v2; None where there is none."""
    program = compose_v2()
    if program is None:
        return None
    plugins = folder / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(program.absolute())
    return plugins.parent


def _answers(host: str) -> bool:
    done = subprocess.run(
        ["docker", "info"],
        env={**os.environ, "DOCKER_HOST": host},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    return done.returncode == 0
