"""A checkpoint loaded in the precision that ``engine.json`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from checkpoints.errors import ServingError
from checkpoints.loading import DTYPES, describe_source, empty_model, load_model
from serving.engine.config import EngineConfig
from serving.engine.torch.int8_rounding import round_linear_layers

__all__ = ["load_in_precision"]


def load_in_precision(checkpoint: Path, config: EngineConfig) -> PreTrainedModel:
    """Load ``checkpoint``; NF4 and int8 weights are computed with in ``kv_dtype``, others as they are.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ServingError: int8 weights are asked for on a GPU.
    """
    device_map = None if config.device_map == "none" else _device_map(checkpoint, config)
    # int8 is made of the checkpoint's own numbers.
    dtype = {"nf4": config.kv_dtype, "int8": "auto"}.get(config.weights, config.weights)
    model = load_model(
        checkpoint,
        dtype=dtype,
        device=config.device,
        trust_remote_code=config.trust_remote_code,
        device_map=device_map,
    )
    if describe_source(checkpoint).kind == "adapter":
        model = model.get_base_model()  # with the adapter's layers in it; PEFT's wrapper has nothing to add
    if config.weights == "nf4" and config.kv_dtype == "fp32":
        # What quantization left alone (embeddings, norms, the head) is still in 16 bit.
        for values in (*model.parameters(), *model.buffers()):
            if values.dtype in (torch.bfloat16, torch.float16):
                values.data = values.data.float()
        model.config.dtype = torch.float32
    if config.weights == "int8":
        if model.device.type != "cpu":
            raise ServingError(
                f"int8 weights are computed on a CPU, but the model is on {model.device}; set device to cpu, "
                "or export with --weights bf16"
            )
        round_linear_layers(model, DTYPES[config.kv_dtype])
    return model


def _device_map(checkpoint: Path, config: EngineConfig) -> str | dict[str, Any]:
    """Return where each layer goes when the model is spread over several GPUs."""
    if config.weights == "nf4":
        return "auto"  # only transformers' quantizer knows how large its layers will be
    from serving.engine.torch.placement import cache_bytes, place_layers

    empty = empty_model(checkpoint, trust_remote_code=config.trust_remote_code)
    text = empty.config.get_text_config()
    kv_bytes = cache_bytes(text, config.slots, config.max_context, DTYPES[config.kv_dtype])
    return place_layers(empty, DTYPES[config.weights], kv_bytes)
