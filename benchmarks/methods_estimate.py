"""What each method takes at 7B, computed as ``trimaran train --dry-run`` does; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.nf4_sizes import SHAPES
from training.config import TrainConfig
from training.data.config import DataConfig
from training.memory_estimate import MemoryEstimate, estimate_memory

__all__ = ["MODEL", "estimate_methods"]

MODEL = "DeepSeek-LLM 7B"
_MAX_LENGTH = 2048


def estimate_methods(methods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return for each method the bytes of one row of 2,048 tokens in bf16, gradient checkpointing on.

    Args:
        methods: name -> settings, as ``benchmarks.methods.METHODS`` has them.
    """
    found = {name: _estimate(settings) for name, settings in methods.items()}
    return {
        "model": MODEL,
        "max_length": _MAX_LENGTH,
        "methods": {
            name: {
                "total_bytes": estimate.total,
                "weights_bytes": estimate.weights,
                "states_bytes": estimate.gradients + estimate.optimizer,
                "activations_bytes": estimate.activations,
                "trainable_share": estimate.trainable / estimate.parameters,
            }
            for name, estimate in found.items()
        },
    }


def _estimate(settings: dict[str, Any]) -> MemoryEstimate:
    config = TrainConfig(
        model=MODEL,
        data=DataConfig(train=Path("rows.jsonl"), max_length=_MAX_LENGTH),
        output=Path("out"),
        method=settings["method"],
        dtype="bf16",
        device="cuda",
        batch_size=1,
        gradient_checkpointing=True,
    )
    if targets := settings.get("targets"):
        config = replace(config, lora=replace(config.lora, target_modules=targets))
    model_type, shape = SHAPES[MODEL][0]
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(model_type, **shape), dtype=torch.bfloat16
        )
    return estimate_memory(config, base, _MAX_LENGTH)
