"""A podman of the tests' own, for ``podman play kube``: its storage goes with the test's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Podman", "PodmanMissing", "running_podman"]

# runc: Debian's crun asks for cgroup features that a container of CI may lack. Limits within what we may set.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class PodmanMissing(Exception):
    """There is no podman that could run here; the message is the reason."""


@dataclass(frozen=True)
class Podman:
    """A podman with storage of its own.

    Attributes:
        folder: of its settings and storage.
        state: folder of what runs; podman refuses one whose path is longer than 50 characters.
    """

    folder: Path
    state: Path

    def command(self, *arguments: str) -> list[str]:
        """Return the whole command."""
        storage = (f"--root={self.folder / 'storage'}", f"--runroot={self.state / 'run'}")
        return ["podman", *storage, f"--tmpdir={self.state / 'tmp'}", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Variables for podman."""
        return {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}

    def run(self, *arguments: str, timeout: float = 120, check: bool = True) -> str:
        """Run podman; return what it printed on both streams."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"podman {' '.join(arguments)[:200]}: {done.returncode}\n{done.stdout[-4000:]}"
            )
        return done.stdout

    def load(self, image: str, docker: list[str], environment: dict[str, str], timeout: float = 300) -> None:
        """Take ``image`` over from a Docker engine, which ``docker`` with ``environment`` speaks to."""
        with subprocess.Popen([*docker, "save", image], env=environment, stdout=subprocess.PIPE) as saving:
            done = subprocess.run(
                self.command("load", "--quiet"),
                env=self.environment,
                stdin=saving.stdout,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
            )
        assert (saving.returncode, done.returncode) == (0, 0), done.stdout[-4000:]


@contextmanager
def running_podman(folder: Path) -> Iterator[Podman]:
    """Yield a podman whose pods, images and volumes are gone after the block.

    Raises:
        PodmanMissing: it is not installed, or cannot run containers here.
    """
    absent = [name for name in ("podman", "runc", "slirp4netns", "conmon") if shutil.which(name) is None]
    if absent:
        raise PodmanMissing(f"{', '.join(absent)} not installed")
    if os.geteuid() != 0:
        raise PodmanMissing("the test hands a volume over to the container's user, which needs root")
    (folder / "containers.conf").write_text(_CONTAINERS_CONF)
    # Not under ``folder``, nor under TMPDIR: a machine of CI may have long paths for both.
    state = Path(tempfile.mkdtemp(prefix="podman-", dir="/tmp"))
    podman = Podman(folder, state)
    try:
        said = podman.run("info", check=False)
        if "graphRoot" not in said:
            raise PodmanMissing(f"podman does not work here: {said.strip().splitlines()[-1:]}")
        yield podman
    finally:
        podman.run("system", "reset", "--force", check=False)
        shutil.rmtree(state, ignore_errors=True)
