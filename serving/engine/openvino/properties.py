"""What OpenVINO's CPU plugin is told about precision and threads."""

from __future__ import annotations

import os
from typing import Any

from serving.engine.config import EngineConfig

__all__ = ["compile_properties"]

_KV_PRECISIONS = {"fp32": "f32", "fp16": "f16", "u8": "u8"}


def compile_properties(config: EngineConfig) -> dict[str, Any]:
    """Return the properties to compile a model with.

    fp32 weights are computed in fp32. With the others the plugin computes in what the CPU is fast at: bf16
    where it has bf16 instructions, else fp32. The KV precision is always ours: the plugin's default, u8,
    gives wrong tokens where keys and values differ in size.
    """
    properties: dict[str, Any] = {
        "KV_CACHE_PRECISION": _KV_PRECISIONS[config.kv_dtype],
        "INFERENCE_NUM_THREADS": config.threads or len(os.sched_getaffinity(0)),
        "PERFORMANCE_HINT": "LATENCY",
    }
    if config.weights == "fp32" or config.kv_dtype == "fp32":
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    return properties
