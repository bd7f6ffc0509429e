"""What OpenVINO's CPU plugin is told about precision and threads."""

from __future__ import annotations

import logging
from typing import Any

import openvino as ov
import torch

from serving.cpus import engine_threads
from serving.engine.config import EngineConfig

__all__ = ["compile_properties", "computed_in"]

logger = logging.getLogger(__name__)

_NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
_KV_PRECISIONS = {"fp32": "f32", "fp16": "f16", "u8": "u8"}


def compile_properties(config: EngineConfig) -> dict[str, Any]:
    """Return the properties to compile a model with.

    fp32 weights are computed in fp32. With the others the plugin computes in what the CPU is fast at: bf16
    where it has bf16 instructions, else fp32. The KV precision is always ours: the plugin's default, u8,
    gives wrong tokens where keys and values differ in size.
    """
    threads = engine_threads(config.threads)
    properties: dict[str, Any] = {
        "KV_CACHE_PRECISION": _KV_PRECISIONS[config.kv_dtype],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if config.weights == "fp32" or config.kv_dtype == "fp32":
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    elif config.weights == "fp16" and threads == 1 and torch.cpu.get_capabilities().get("amx_bf16"):
        # OpenVINO 2026.4.1 divides by zero here and takes the process along (openvino #33300).
        logger.warning(
            "threads is 1, and OpenVINO has no bf16 for one thread on CPUs with AMX: computing in fp32;"
            " two threads or int8 weights are several times faster"
        )
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    return properties


def computed_in(properties: dict[str, Any]) -> str:
    """Return the precision the CPU plugin multiplies in on this machine: ``fp32``, ``bf16`` or ``fp16``.

    Args:
        properties: of ``compile_properties``. Without a hint of ours it is the plugin's choice for this CPU.
    """
    hint = properties.get("INFERENCE_PRECISION_HINT")
    name = hint or ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    return _NAMES.get(name, str(name))
