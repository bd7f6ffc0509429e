"""What ``doctor`` reads of the machine: CPU, memory, GPU, disk, ports, shared memory, container engine."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from checkpoints.machine_memory import machine_memory
from trimaran.doctor import Check

__all__ = ["MACHINE_CHECKS"]

logger = logging.getLogger(__name__)

GIB = 1024**3
# Flags that decide which kernels run: AVX2 is the least that torch and bitsandbytes are built for,
# AVX-512 BF16 and AMX make bf16 matrix products native.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# Triton's defaults: HTTP, gRPC, metrics.
TRITON_PORTS = (8000, 8001, 8002)
# A bundled Triton (0.3), its Python layer, the demo's model in three forms and its reports.
DISK_WANTED = 3 * GIB
# The demo: SmolLM2-135M training peaks near 3 GiB, serving near 1.5 GiB.
MEMORY_WANTED = 6 * GIB
# One Triton Python model starts with 1 MiB and grows; Docker's default of 64 MiB is where trouble starts.
SHM_WANTED = 256 * 1024**2


def cpu(name: str) -> Check:
    """Model, usable cores and the vector flags that matter."""
    model, flags = "", set[str]()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and not model:
            model = value.strip()
        elif key.strip() in ("flags", "Features") and not flags:
            flags = set(value.split())
    cores = len(os.sched_getaffinity(0))
    here = [flag for flag in CPU_FLAGS if flag in flags]
    found = f"{model or 'unknown model'}, {cores} cores, {' '.join(here) or 'no AVX2'}"
    data: dict[str, object] = {"model": model, "cores": cores, "flags": here}
    if "avx2" not in flags:
        return Check(name, "warn", found, "expect slow CPU inference: the fast kernels need AVX2", data)
    return Check(name, "ok", found, data=data)


def memory(name: str) -> Check:
    """Available memory, within the container's limit where there is one."""
    available, total = machine_memory()
    found = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    data: dict[str, object] = {"total_bytes": total, "available_bytes": available}
    if available < MEMORY_WANTED:
        return Check(name, "warn", found, f"the demo wants {MEMORY_WANTED // GIB} GiB", data)
    return Check(name, "ok", found, data=data)


def gpu(name: str) -> Check:
    """NVIDIA GPUs by their driver, and whether the installed torch can use them."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return Check(name, "ok", "no NVIDIA driver; everything runs on the CPU", data={"gpus": []})
    gpus = [line.strip() for line in listed.splitlines() if line.strip()]
    data: dict[str, object] = {"gpus": gpus}
    found = "; ".join(gpus) or "a driver, but no GPU"
    try:
        import torch
    except ImportError:
        return Check(name, "ok", f"{found} (torch is not installed)", data=data)
    data["torch_cuda"] = torch.cuda.is_available()
    if gpus and not torch.cuda.is_available():
        remedy = "install a CUDA build of torch (TORCH_INDEX_URL chooses PyTorch's index)"
        return Check(name, "warn", f"{found}; torch {torch.__version__} cannot use it", remedy, data)
    return Check(name, "ok", found, data=data)


def container_engine(name: str) -> Check:
    """A Docker-compatible engine that answers; a `docker` program on PATH alone proves nothing."""
    try:
        import docker
    except ImportError:
        return Check(
            name, "warn", "not asked: the docker package is missing", "pip install 'trimaran[serve]'"
        )
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    remedy = "only container images need one; start Docker or Podman, or set DOCKER_HOST"
    absent = Check(name, "warn", f"no engine answers at {where}", remedy, {"running": False})
    if where.startswith("unix://") and not Path(where.removeprefix("unix://")).exists():
        return absent
    try:
        client = docker.from_env(timeout=5)
        try:
            info = client.info()
        finally:
            client.close()
    except docker.errors.DockerException as error:
        logger.debug("container engine: %s", error)
        return absent
    version, root = info.get("ServerVersion", "?"), info.get("DockerRootDir", "?")
    return Check(name, "ok", f"{version}, data in {root}", data={"running": True, "version": version})


def disk(name: str) -> Check:
    """Free space where artefacts go (here) and where downloads go (the cache)."""
    from serving.cache import cache_directory

    places = {"here": Path.cwd(), "cache": cache_directory()}
    free = {place: shutil.disk_usage(path).free for place, path in places.items()}
    found = ", ".join(f"{free[place] / GIB:.1f} GiB free in {path}" for place, path in places.items())
    data: dict[str, object] = {f"{place}_free_bytes": size for place, size in free.items()}
    tight = [str(places[place]) for place, size in free.items() if size < DISK_WANTED]
    if tight:
        remedy = f"make {DISK_WANTED // GIB} GiB free in {' and '.join(tight)}, or set TRIMARAN_CACHE"
        return Check(name, "warn", found, remedy, data)
    return Check(name, "ok", found, data=data)


def ports(name: str) -> Check:
    """Whether Triton's usual ports are free."""
    taken = []
    for port in TRITON_PORTS:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                taken.append(port)
    data: dict[str, object] = {"taken": taken}
    if taken:
        remedy = "serve on other ports (--http-port 0 picks free ones)"
        return Check(name, "warn", f"{', '.join(map(str, taken))} in use", remedy, data)
    return Check(name, "ok", f"{', '.join(map(str, TRITON_PORTS))} are free", data=data)


def shared_memory(name: str) -> Check:
    """Size of /dev/shm: Triton and its Python models exchange tensors there."""
    usage = shutil.disk_usage("/dev/shm")
    found = f"{usage.free / GIB:.2f} of {usage.total / GIB:.2f} GiB free in /dev/shm"
    data: dict[str, object] = {"total_bytes": usage.total, "free_bytes": usage.free}
    if usage.free < SHM_WANTED:
        return Check(name, "warn", found, "start the container with --shm-size=1g", data)
    return Check(name, "ok", found, data=data)


MACHINE_CHECKS: dict[str, Callable[[str], Check]] = {
    "cpu": cpu,
    "memory": memory,
    "gpu": gpu,
    "disk": disk,
    "shared memory": shared_memory,
    "ports": ports,
    "container engine": container_engine,
}
