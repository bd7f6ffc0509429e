"""What a server with a model needs of a machine, from the model's files: memory, CPUs, GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from checkpoints.errors import DeployError
from checkpoints.manifest import read_manifest
from serving.engine.config import ENGINE_CONFIG_NAME, EngineConfig
from serving.repository import find_models, find_versions
from serving.triton_config import parse
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.memory import CUDA_BYTES, MARGIN, RUNTIME_BYTES, SERVER_BYTES, kv_bytes, weight_bytes

__all__ = ["GIB", "Sizing", "size"]

GIB = 2**30

_DEFAULT_THREADS = 2
_SHM_PER_INSTANCE = GIB // 4


@dataclass(frozen=True)
class Sizing:
    """What one server with the model needs."""

    engine: EngineConfig
    version: int
    """The newest one, which is what Triton loads."""
    weight_bytes: int
    """Weights of one process."""
    kv_bytes: int
    """Keys and values of all slots of one process."""
    instances: int
    """Processes of one version."""
    gpus: int
    """GPUs of the server; 0 serves on CPUs."""
    cpus: int
    threads: int
    """Math threads of one process."""
    versions: int
    """Versions that are in memory at once."""

    @property
    def runtime_bytes(self) -> int:
        """Libraries of one process."""
        return RUNTIME_BYTES.get(self.engine.engine, max(RUNTIME_BYTES.values())) + CUDA_BYTES * (
            self.gpus > 0
        )

    @property
    def memory_bytes(self) -> int:
        """Memory of the server without shared memory. On GPUs the weights still pass through it."""
        process = self.weight_bytes + (0 if self.gpus else self.kv_bytes) + self.runtime_bytes
        return math.ceil(MARGIN * (process * self.instances * self.versions + SERVER_BYTES))

    @property
    def memory_gib(self) -> int:
        """Memory limit of the server, GiB, shared memory included: the kernel counts it too."""
        return math.ceil(self.memory_bytes / GIB) + self.shm_gib

    @property
    def shm_gib(self) -> int:
        """Size of /dev/shm, GiB: 256 MiB for each instance, at least 1 GiB."""
        return math.ceil(self.instances * self.versions * _SHM_PER_INSTANCE / GIB)

    @property
    def memory_reason(self) -> str:
        """How the limit came about, in one line."""
        held = "weights + runtime" if self.gpus else "weights + KV cache + runtime"
        return (
            f"{MARGIN:g} (safety) x ({held}, x {_count(self.instances, 'instance')} x "
            f"{_count(self.versions, 'version')}, + Triton {_mb(SERVER_BYTES)}) + {self.shm_gib} GiB /dev/shm"
        )

    @property
    def cpu_reason(self) -> str:
        """Where the CPUs come from."""
        if self.cpus != self.threads * self.instances:
            return "--cpus"
        known = "engine.json: threads" if self.engine.threads else "engine.json names no threads"
        return f"{known}; {_count(self.instances, 'instance')}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Return for a reader (what, how much, derived from what)."""
        engine = self.engine
        where = "in each GPU's memory" if self.gpus else "in memory"
        kv = f"{engine.slots} slots x {engine.max_context} tokens in {engine.kv_dtype}"
        whole = engine.slots * engine.max_context
        if engine.kv_tokens is not None and engine.kv_tokens < whole and engine.engine != "torch":
            kv = f"{engine.kv_tokens} tokens in {engine.kv_dtype}"
        runtime = "measured: an empty process" + (
            " + an allowance for CUDA, not measured" if self.gpus else ""
        )
        return [
            (
                "version",
                str(self.version),
                f"newest; {engine.engine}, {engine.weights} weights (engine.json)",
            ),
            ("instances", str(self.instances), "config.pbtxt: instance_group"),
            ("weights", _mb(self.weight_bytes), "sizes of the checkpoint's files, per instance"),
            ("KV cache", _mb(self.kv_bytes), f"{kv} (engine.json, config.json), {where}, per instance"),
            ("runtime", _mb(self.runtime_bytes), f"{runtime}, per instance"),
            ("memory", f"{self.memory_gib} GiB", self.memory_reason),
            ("/dev/shm", f"{self.shm_gib} GiB", "256 MiB per instance and version, at least 1 GiB"),
            ("CPUs", str(self.cpus), f"{self.cpu_reason}; {self.threads} threads each"),
            ("GPUs", str(self.gpus), "config.pbtxt: instance_group kind, or --gpus"),
        ]


def size(config: DeployConfig) -> Sizing:
    """Return what a server with ``config.model`` needs.

    Raises:
        ServerError: the repository is no directory.
        DeployError: it holds no such model, a file of it cannot be read, or ``gpus`` does not fit the model.
        CheckpointError, ServingError: a file of the version is malformed.
    """
    assert config.repository is not None
    repository, model = config.repository, config.model
    models = find_models(repository)
    versions = find_versions(repository / model) if model in models else []
    if not versions:
        held = ", ".join(models) or "no model"
        raise DeployError(
            f"model is {model!r}, but {repository} has no version of it; it holds {held} "
            "(`trimaran export` writes one)"
        )
    folder = repository / model / str(versions[-1])
    engine = EngineConfig.read(folder / ENGINE_CONFIG_NAME)
    checkpoint = folder / "checkpoint"
    manifest = read_manifest(checkpoint)
    count, kinds, pinned = _instance_group(repository / model / "config.pbtxt")
    gpus = _gpus(config.gpus, engine, kinds, pinned)
    # Triton starts `count` instances on each GPU; a model that is spread over all of them starts as it is.
    instances = count * max(1, gpus) if "KIND_MODEL" not in kinds else count
    threads = engine.threads or max(1, (config.cpus or _DEFAULT_THREADS * instances) // instances)
    return Sizing(
        engine=engine,
        version=versions[-1],
        weight_bytes=weight_bytes(checkpoint, manifest, engine),
        kv_bytes=kv_bytes(checkpoint, engine),
        instances=instances,
        gpus=gpus,
        cpus=config.cpus or threads * instances,
        threads=threads,
        versions=config.versions or (2 if config.target == "compose" else 1),
    )


def _instance_group(path: Path) -> tuple[int, set[str], int]:
    """Return instances (on each GPU, where there are GPUs), kinds, and how many GPUs are named."""
    try:
        groups = parse(path.read_text(encoding="utf-8"), str(path)).instance_group
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}; export the model again") from error
    count = sum(max(1, group.count) for group in groups) or 1
    kinds = {type(group).Kind.Name(group.kind) for group in groups} or {"KIND_AUTO"}
    return count, kinds, len({number for group in groups for number in group.gpus})


def _gpus(asked: int | None, engine: EngineConfig, kinds: set[str], pinned: int) -> int:
    if asked and engine.engine != "torch":
        raise DeployError(
            f"gpus is {asked}, but engine {engine.engine} computes on CPUs; export with --engine torch, or "
            "leave --gpus out"
        )
    if asked and kinds == {"KIND_CPU"}:
        raise DeployError(
            f"gpus is {asked}, but the model was exported for CPUs (config.pbtxt: KIND_CPU); export it with "
            "--device gpu, or leave --gpus out"
        )
    if "KIND_MODEL" in kinds and not asked:
        raise DeployError(
            "the model is spread over several GPUs (exported with --device-map auto); say over "
            "how many: --gpus N"
        )
    if "KIND_GPU" in kinds and asked == 0:
        raise DeployError(
            "gpus is 0, but the model was exported for GPUs (config.pbtxt: KIND_GPU); accepted: at least 1"
        )
    return asked if asked is not None else max(1, pinned) if "KIND_GPU" in kinds else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 10_000_000 else f"{size / 1e6:,.0f} MB"
