"""Builds GenAI's continuous-batching pipeline from ``engine.json``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import openvino_genai

from serving.engine.config import EngineConfig
from serving.engine.openvino.files import find_model_folder
from serving.engine.openvino.properties import compile_properties

__all__ = ["BLOCK", "build_pipeline", "kv_blocks"]

BLOCK = 32
"""Tokens of one block of the KV cache on a CPU."""


def kv_blocks(config: EngineConfig) -> int:
    """Return the blocks of the KV pool: what ``kv_tokens`` asks, or room for every slot's whole context."""
    if config.kv_tokens is not None:
        return math.ceil(config.kv_tokens / BLOCK)
    return config.slots * math.ceil(config.max_context / BLOCK)


def build_pipeline(checkpoint: Path, config: EngineConfig) -> Any:
    """Return a ``ContinuousBatchingPipeline``.

    A step computes the next token of every running request and ``prefill_chunk`` tokens of prompts beside
    them, or more while slots are free, so a long prompt holds up the streams beside it by no more than that.

    Raises:
        ServingError: the model files are missing.
    """
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.dynamic_split_fuse = True
    scheduler.max_num_batched_tokens = config.prefill_chunk + config.slots
    scheduler.max_num_seqs = config.slots
    scheduler.num_kv_blocks = kv_blocks(config)
    scheduler.enable_prefix_caching = False
    folder = find_model_folder(checkpoint)
    return openvino_genai.ContinuousBatchingPipeline(
        folder, scheduler, "CPU", properties=compile_properties(config)
    )
