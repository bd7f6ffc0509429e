"""Base images where none can be pulled: a minimal Debian with Python, tagged with the names we build on.

Also carries this machine's pip settings and certificate bundle into the base, never into our files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.deploy.containers.engine import Engine, EngineMissing
from tests.deploy.containers.in_memory import in_memory

__all__ = ["PROMETHEUS", "PYTHON", "ensure_python", "make_prometheus"]

PYTHON = "python:3.11-slim-bookworm"
PROMETHEUS = "trimaran-test/prometheus:debian"

# debootstrap knows no virtual packages, so what provides one is named too.
_PACKAGES = "python3.11,python3.11-venv,python3-distutils,libpython3.11,ca-certificates"


def ensure_python(engine: Engine, folder: Path) -> None:
    """Pull the base image of our Dockerfile, or make a stand-in with its name.

    Raises:
        EngineMissing: it can be neither pulled nor made.
    """
    if not engine.own:
        if engine.docker("images", "--quiet", PYTHON).strip():
            return
        done = engine.docker("pull", "--quiet", PYTHON, timeout=300, check=False)
        if engine.docker("images", "--quiet", PYTHON).strip():
            return
        raise EngineMissing(f"{PYTHON} cannot be pulled: {done.strip().splitlines()[-1:]}")
    if shutil.which("debootstrap") is None:
        raise EngineMissing("debootstrap is not installed, which makes a base image where none can be pulled")
    base = folder / "base"
    base.mkdir()
    with in_memory(base, 1):
        root = base / "root"
        _make_root(root)
        _import(engine, root, PYTHON)
    shutil.rmtree(base, ignore_errors=True)


def _make_root(root: Path) -> None:
    # As Debian's own images have it: nobody needs these files after a power cut.
    settings = root / "etc" / "dpkg" / "dpkg.cfg.d" / "unsafe-io"
    settings.parent.mkdir(parents=True)
    settings.write_text("force-unsafe-io\n")
    _run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root))
    shutil.rmtree(root / "var" / "cache" / "apt" / "archives", ignore_errors=True)
    shutil.rmtree(root / "var" / "lib" / "apt" / "lists", ignore_errors=True)
    shutil.rmtree(root / "usr" / "share" / "doc", ignore_errors=True)
    (root / "usr" / "local" / "bin" / "python3").symlink_to("/usr/bin/python3.11")
    _carry_certificates(root)
    _carry_pip_settings(root)


def make_prometheus(engine: Engine, folder: Path) -> str:
    """Make an image of this machine's Prometheus on the Python base; return its tag."""
    binary = shutil.which("prometheus")
    if binary is None:
        raise EngineMissing("prometheus is not on PATH")
    context = folder / "prometheus"
    context.mkdir()
    shutil.copy(Path(binary).resolve(), context / "prometheus")
    (context / "Dockerfile").write_text(
        f"FROM {PYTHON}\n"
        "COPY prometheus /bin/prometheus\n"
        "RUN mkdir /prometheus && chown 65534 /prometheus\n"
        "USER 65534\n"
        'ENTRYPOINT ["/bin/prometheus"]\n'
    )
    engine.docker("build", "--network=host", "--tag", PROMETHEUS, str(context), timeout=120)
    return PROMETHEUS


def _carry_certificates(root: Path) -> None:
    bundle = os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt"
    if Path(bundle).is_file():
        shutil.copy(bundle, root / "etc" / "ssl" / "certs" / "ca-certificates.crt")


def _carry_pip_settings(root: Path) -> None:
    """Copy what ``pip config list`` names: settings, and the local folders that hold wheels."""
    lines = ["[global]", "disable-pip-version-check = 1", "timeout = 180"]
    lines.append("cert = /etc/ssl/certs/ca-certificates.crt")
    listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        setting, value = name.rpartition(".")[2], value.strip("'\"")
        if not name.startswith("global.") or setting not in ("find-links", "index-url"):
            continue
        lines.append(f"{setting} = {value}")
        for word in value.split():
            place = Path(word.removeprefix("file://"))
            if place.is_dir():
                shutil.copytree(place, root / place.relative_to("/"), dirs_exist_ok=True)
    (root / "etc" / "pip.conf").write_text("\n".join(lines) + "\n")


def _import(engine: Engine, root: Path, tag: str) -> None:
    # Devices are the engine's to make. Nothing lies on disk between the two.
    with subprocess.Popen(
        ["tar", f"--directory={root}", "--exclude=./dev/*", "--create", "."], stdout=subprocess.PIPE
    ) as packing:
        done = subprocess.run(
            ["docker", "import", "--change", 'CMD ["python3"]', "-", tag],
            env=engine.environment,
            stdin=packing.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    if packing.returncode or done.returncode:
        raise EngineMissing(f"{tag} cannot be made of a folder: {done.stdout.strip().splitlines()[-1:]}")


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise EngineMissing(f"{command[0]} failed: {done.stdout.strip().splitlines()[-1:]}")
