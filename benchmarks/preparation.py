"""What every benchmark begins with: the checkpoint, the folders, the precision of this machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import machine_facts
from benchmarks.setting import Setting
from checkpoints.manifest import manifest_sha256
from serving.cache import cache_directory

__all__ = ["default_precision", "demo_checkpoint", "make_setting", "tell"]

_BEGIN = time.monotonic()


def tell(line: str) -> None:
    """Print one line of progress, with the time since the start."""
    seconds = int(time.monotonic() - _BEGIN)
    print(f"[{seconds // 60:3d}:{seconds % 60:02d}] {line}", flush=True)


def demo_checkpoint() -> Path:
    """Return SmolLM2-135M-Instruct as a checkpoint, made from its package once.

    Raises:
        DataError: the package is not installed.
    """
    from trimaran.demo_stages import make_base

    return make_base(_cache() / "checkpoint")


def default_precision() -> str:
    """``bf16`` where the processor multiplies it, else ``fp32``: emulated bf16 is some 30 times slower."""
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(machine_facts()["cpu_flags"]) else "fp32"


@contextmanager
def make_setting(
    checkpoint: Path | None,
    precision: str,
    *,
    threads: int | None = None,
    slots: int = 32,
    max_context: int = 512,
) -> Iterator[Setting]:
    """Yield the setting of a run; its model repository goes when the run is over.

    Args:
        checkpoint: a checkpoint with a manifest; by default the demo's.
        precision: ``auto``, ``fp32`` or ``bf16``.
        threads: of each engine; by default the cores we may use.
        slots: requests at once.
        max_context: tokens of a request.
    """
    checkpoint = (checkpoint or demo_checkpoint()).resolve()
    cache = _cache()
    logs = cache / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # In the cache, so that a checkpoint's files are linked into it and not copied.
    with tempfile.TemporaryDirectory(prefix="repository-", dir=cache) as repository:
        yield Setting(
            checkpoint=checkpoint,
            checkpoint_hash=manifest_sha256(checkpoint),
            cache=cache,
            repository=Path(repository),
            logs=logs,
            precision=default_precision() if precision == "auto" else precision,
            threads=threads or len(os.sched_getaffinity(0)),
            slots=slots,
            max_context=max_context,
        )


def _cache() -> Path:
    folder = cache_directory() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
