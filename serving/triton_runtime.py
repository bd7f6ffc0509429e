"""The Python environment inside Triton's Python backend.

The bundled stub needs ``numpy<2``: with numpy 2 numeric outputs fail and string outputs kill the stub.
The project's environment keeps numpy 2. So Triton gets a thin layer: a virtual environment that holds
``numpy==1.26.4`` alone and a ``.pth`` file that adds the project's site-packages *after* its own. The
stub takes its prefix from the ``python3`` it finds first on PATH and ignores PYTHONPATH.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import serving
from checkpoints.atomic import write_text_atomically
from checkpoints.errors import ServerError
from serving.cache import cache_directory, locked
from serving.cpus import THREADS_VARIABLE, available_cpus
from serving.triton_install import TritonInstall, pip_environment

__all__ = ["libpython_directory", "runtime_layer", "triton_environment"]

NUMPY = "numpy==1.26.4"
_COMPLETE = "complete"


def triton_environment(install: TritonInstall, *, threads: int | None) -> dict[str, str]:
    """Return the environment for tritonserver.

    Args:
        install: the server to start.
        threads: math threads of each model process (engine, OpenMP, BLAS); by default what the caller's
            environment says, else all cores we may use, of which each engine takes its instance's part.

    Raises:
        ServerError: the Python library or the numpy layer is missing and cannot be made.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _PYTHON_SETTINGS}
    if install.bundled:
        prefix = runtime_layer()
        # Ours first: a distribution's libpython beside a pyenv interpreter gives "undefined symbol".
        libraries = [libpython_directory(), *install.libraries]
        inherited = environment.get("LD_LIBRARY_PATH")
        parts = [*map(str, libraries), *([inherited] if inherited else [])]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(parts)
    else:
        prefix = Path(sys.prefix)
    environment["PATH"] = os.pathsep.join([str(prefix / "bin"), environment.get("PATH", os.defpath)])
    environment["PYTHONUNBUFFERED"] = "1"
    environment[THREADS_VARIABLE] = str(threads or environment.get("OMP_NUM_THREADS", "auto"))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads or environment.get(name, available_cpus()))
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    return environment


_PYTHON_SETTINGS = {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}


def libpython_directory() -> Path:
    """Return the folder of this interpreter's shared ``libpython3.X.so.1.0``.

    Raises:
        ServerError: this Python is linked statically; the bundled stub cannot run with it.
    """
    library = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    libdir = sysconfig.get_config_var("LIBDIR") or ""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for folder in (Path(libdir), Path(libdir) / multiarch, Path(sys.base_prefix) / "lib"):
        if (folder / library).exists():
            return folder
    hint = ""
    if ctypes.util.find_library(f"python{sys.version_info.major}.{sys.version_info.minor}"):
        hint = " (the one that ldconfig knows belongs to another interpreter)"
    raise ServerError(
        f"this Python ({sys.base_prefix}) has no {library}{hint}, and the bundled tritonserver needs it; "
        f"install your distribution's package (Debian, Ubuntu: libpython{library[9:13]}), or use a Python "
        "built with --enable-shared, a tritonserver on PATH, or the container image"
    )


def runtime_layer() -> Path:
    """Return the numpy 1 layer for this environment, made on first use (one small download).

    Raises:
        ServerError: pip cannot install numpy there.
    """
    folders = project_folders()
    key = hashlib.sha256("\n".join([sys.prefix, sys.version, NUMPY, *folders]).encode()).hexdigest()[:12]
    layer = cache_directory() / f"runtime-{sys.version_info.major}.{sys.version_info.minor}-{key}"
    if not (layer / _COMPLETE).exists():
        with locked(layer.with_name(f"{layer.name}.lock")):
            if not (layer / _COMPLETE).exists():
                _build(layer, folders)
    return layer


def project_folders() -> list[str]:
    """Return the folders that hold our packages and what they import, in the order of ``sys.path``."""
    folders = [folder for folder in site.getsitepackages() if Path(folder).is_dir()]
    if site.ENABLE_USER_SITE and Path(site.getusersitepackages()).is_dir():
        folders.append(site.getusersitepackages())
    source = str(Path(serving.__file__).resolve().parents[1])
    # From a clone that is not installed, our own packages are in no site-packages.
    return folders if source in folders else [*folders, source]


def _build(layer: Path, folders: list[str]) -> None:
    # A virtual environment names its own path, so it is built in place; the marker comes last.
    shutil.rmtree(layer, ignore_errors=True)
    venv.create(layer, with_pip=False, symlinks=True)
    packages = layer / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--no-warn-conflicts", "--only-binary=:all:", "--target", str(packages), NUMPY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=pip_environment())
    if done.returncode != 0:
        shutil.rmtree(layer, ignore_errors=True)
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "")
        raise ServerError(
            f"Triton's Python layer needs {NUMPY}, which pip could not install: {reason}; connect to a "
            "package index once, or name a folder with that wheel (PIP_FIND_LINKS), or use the container"
        )
    # addsitedir, not a bare path: it also reads the .pth files of editable installs.
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    write_text_atomically(packages / "trimaran_project.pth", "\n".join(lines) + "\n")
    write_text_atomically(layer / _COMPLETE, f"{NUMPY}\n")
