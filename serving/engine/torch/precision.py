"""A checkpoint loaded in the precision that ``engine.json`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from checkpoints.loading import DTYPES, describe_source, empty_model, load_model
from serving.engine.config import EngineConfig

__all__ = ["load_in_precision"]


def load_in_precision(checkpoint: Path, config: EngineConfig) -> PreTrainedModel:
    """Load ``checkpoint``; an NF4 one computes in ``kv_dtype``, any other in ``weights``.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
    """
    device_map = None if config.device_map == "none" else _device_map(checkpoint, config)
    dtype = config.kv_dtype if config.weights == "nf4" else config.weights
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
