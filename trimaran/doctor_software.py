"""What ``doctor`` reads of the software: Python, the platform, packages, extras, tritonserver."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import sys
from collections.abc import Callable

from checkpoints.errors import ServerError
from trimaran.doctor import Check

__all__ = ["SOFTWARE_CHECKS"]

EXTRAS = ("train", "serve", "openvino", "onnx", "loadtest")
SHOWN_PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "bitsandbytes", "gguf", "numpy", "tritonclient",
    "openvino", "openvino-genai", "nncf", "onnx", "onnxruntime", "locust", "docker",
)  # fmt: skip


def python(name: str) -> Check:
    """The interpreter's version."""
    found = f"{platform.python_version()} in {sys.prefix}"
    data: dict[str, object] = {"version": platform.python_version(), "prefix": sys.prefix}
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        return Check(name, "fail", found, "use Python 3.11 or 3.12", data)
    return Check(name, "ok", found, data=data)


def libpython(name: str) -> Check:
    """The shared libpython of this interpreter, which the bundled Triton's Python backend loads."""
    from serving.triton_runtime import libpython_directory

    try:
        folder = libpython_directory()
    except ServerError as error:
        return Check(name, "warn", "no shared library for this interpreter", str(error))
    return Check(name, "ok", str(folder), data={"directory": str(folder)})


def system(name: str) -> Check:
    """Linux on x86_64 with glibc >= 2.35, as the bundled Triton needs."""
    from serving.triton_install import check_platform

    library, version = platform.libc_ver()
    found = f"{platform.system()} {platform.machine()}, {library or 'no glibc'} {version}".strip()
    try:
        check_platform()
    except ServerError as error:
        return Check(name, "warn", found, str(error))
    return Check(name, "ok", found)


def tritonserver(name: str) -> Check:
    """The tritonserver that ``serve`` would start: on PATH, in the cache, or to be downloaded."""
    from serving.cache import cache_directory
    from serving.triton_install import check_platform
    from serving.triton_runtime import libpython_directory

    if found := shutil.which("tritonserver"):
        return Check(name, "ok", f"on PATH: {found}", data={"binary": found, "bundled": False})
    try:
        check_platform()
        libpython_directory()
    except ServerError as error:
        return Check(name, "fail", "none on PATH, and the bundled one cannot run here", str(error))
    unpacked = sorted(cache_directory().glob("triton-*/pytriton/tritonserver/bin/tritonserver"))
    if not unpacked:
        found = "none yet; the first `trimaran serve` downloads the bundled one (55 MB)"
        return Check(name, "ok", found, data={"binary": None, "bundled": True})
    return Check(name, "ok", f"bundled: {unpacked[-1]}", data={"binary": str(unpacked[-1]), "bundled": True})


def packages(name: str) -> Check:
    """Versions of what the stages stand on."""
    versions = {package: _version(package) for package in SHOWN_PACKAGES}
    here = [f"{package} {version}" for package, version in versions.items() if version]
    data: dict[str, object] = dict(versions)
    return Check(name, "ok", ", ".join(here) or "none of them", data=data)


def extras(name: str) -> Check:
    """Which extras of this distribution are complete."""
    missing = {extra: _missing(extra) for extra in EXTRAS}
    found = ", ".join(
        f"{extra} (no {', '.join(gone)})" if gone else f"{extra} ready" for extra, gone in missing.items()
    )
    incomplete = [extra for extra, gone in missing.items() if gone]
    data: dict[str, object] = {extra: not gone for extra, gone in missing.items()}
    if incomplete:
        return Check(name, "warn", found, f"pip install 'trimaran[{','.join(incomplete)}]'", data)
    return Check(name, "ok", found, data=data)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _missing(extra: str) -> list[str]:
    """Names of the requirements of ``extra`` that are not installed (a version too old is pip's business)."""
    requirements = importlib.metadata.requires("trimaran") or []
    names = [
        re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]
        for requirement in requirements
        if re.search(rf"""extra\s*==\s*['"]{extra}['"]""", requirement)
    ]
    return [name for name in names if _version(name) is None]


SOFTWARE_CHECKS: dict[str, Callable[[str], Check]] = {
    "python": python,
    "system": system,
    "libpython": libpython,
    "tritonserver": tritonserver,
    "packages": packages,
    "extras": extras,
}
