"""What a model of a repository needs of a machine, from its files: memory, threads, GPUs, times."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from checkpoints.errors import ExportError
from checkpoints.manifest import read_manifest
from serving.engine.config import ENGINE_CONFIG_NAME, EngineConfig
from serving.repository import find_models, find_versions
from serving.triton_config import parse

__all__ = ["GIB", "Sizing", "size"]

GIB = 2**30

_KV_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "u8": 1}
_RUNTIME = {"torch": 525e6, "openvino": 815e6, "onnx": 535e6}
"""What a process of the engine holds without a model, bytes; measured by ``benchmarks/memory.py``."""
_SERVER = 150e6
"""Triton itself."""
_MARGIN = 1.3
"""On the sum: prompts being computed, allocators' fragments, two versions' code while one is swapped."""
_SHM_PER_INSTANCE = GIB // 4


@dataclass(frozen=True)
class Sizing:
    """What one server with the model needs."""

    engine: EngineConfig
    version: int
    weight_bytes: int
    """The weights' files on disk, which is what they take in memory."""
    kv_bytes: int
    """Keys and values of all slots."""
    runtime_bytes: int
    """Libraries and Triton."""
    instances: int
    gpus: int
    """GPUs of the server; 0 serves on CPUs."""
    cpus: int
    """Cores: the threads that the version was exported for, or 2."""

    @property
    def memory_gib(self) -> int:
        """Memory limit of the server, GiB, shared memory included."""
        on_gpu = self.gpus > 0
        held = self.weight_bytes + (0 if on_gpu else self.kv_bytes) + self.runtime_bytes
        return math.ceil(_MARGIN * held * self.instances / GIB) + self.shm_gib

    @property
    def shm_gib(self) -> int:
        """Size of /dev/shm, GiB."""
        return max(1, math.ceil(self.instances * _SHM_PER_INSTANCE / GIB))

    def lines(self) -> list[str]:
        """Return for a reader what was derived from what."""
        engine = self.engine
        tokens = engine.kv_tokens or engine.slots * engine.max_context
        return [
            f"version   {self.version}: {engine.engine} {engine.weights}, {engine.slots} slots of "
            f"{engine.max_context} tokens, {self.instances} instance(s)",
            f"weights   {self.weight_bytes / 1e6:,.0f} MB  (the files of the checkpoint)",
            f"KV cache  {self.kv_bytes / 1e6:,.0f} MB  ({tokens:,} tokens in {engine.kv_dtype})",
            f"runtime   {self.runtime_bytes / 1e6:,.0f} MB  (measured: libraries and Triton)",
            f"memory    {self.memory_gib} GiB  ({_MARGIN:g} times the sum, {self.shm_gib} GiB for /dev/shm)",
            f"CPUs      {self.cpus}  ({'as exported' if engine.threads else 'the export names no threads'})",
            f"GPUs      {self.gpus}",
        ]


def size(repository: Path, model: str) -> Sizing:
    """Return what a server with ``model`` needs.

    Raises:
        ServerError: the repository is no directory.
        ExportError: it holds no such model, or no version of it.
        CheckpointError, ServingError: a file of the version cannot be read.
    """
    models = find_models(repository)
    versions = find_versions(repository / model)
    if model not in models or not versions:
        held = ", ".join(models) or "no model"
        raise ExportError(f"{repository} has no version of model {model!r}; it holds {held} (--model)")
    folder = repository / model / str(versions[-1])
    engine = EngineConfig.read(folder / ENGINE_CONFIG_NAME)
    checkpoint = folder / "checkpoint"
    read_manifest(checkpoint)
    instances, gpus = _instances(repository / model / "config.pbtxt")
    per_process = _RUNTIME.get(engine.engine, max(_RUNTIME.values()))
    return Sizing(
        engine=engine,
        version=versions[-1],
        weight_bytes=_weight_bytes(checkpoint),
        kv_bytes=_kv_bytes(checkpoint, engine),
        runtime_bytes=int(per_process + _SERVER),
        instances=instances,
        gpus=gpus,
        cpus=engine.threads or 2,
    )


def _weight_bytes(checkpoint: Path) -> int:
    ends = (".safetensors", ".bin", ".onnx", ".data", ".onnx_data")
    return sum(path.stat().st_size for path in checkpoint.rglob("*") if path.name.endswith(ends))


def _kv_bytes(checkpoint: Path, engine: EngineConfig) -> int:
    from serving.engine.torch.placement import cache_bytes

    values: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    text = SimpleNamespace(**values.get("text_config", values))
    tokens = engine.kv_tokens or engine.slots * engine.max_context
    one_byte = SimpleNamespace(itemsize=_KV_BYTES[engine.kv_dtype])
    return cache_bytes(text, 1, tokens, one_byte)


def _instances(config: Path) -> tuple[int, int]:
    """Return the instances of the model, and the GPUs it asks for (``KIND_AUTO`` asks for none)."""
    groups = parse(config.read_text(encoding="utf-8"), str(config)).instance_group
    count = sum(max(1, group.count) for group in groups) or 1
    kinds = {type(group).Kind.Name(group.kind) for group in groups}
    return count, 1 if kinds & {"KIND_GPU", "KIND_MODEL"} else 0
