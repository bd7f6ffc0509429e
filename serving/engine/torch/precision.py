"""A checkpoint loaded in the precision that ``engine.json`` names."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from checkpoints.loading import load_model
from serving.engine.config import EngineConfig

__all__ = ["load_in_precision"]


def load_in_precision(checkpoint: Path, config: EngineConfig) -> PreTrainedModel:
    """Load ``checkpoint``; an NF4 one computes in ``kv_dtype``, any other in ``weights``.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
    """
    dtype = config.kv_dtype if config.weights == "nf4" else config.weights
    model = load_model(
        checkpoint, dtype=dtype, device=config.device, trust_remote_code=config.trust_remote_code
    )
    if config.weights == "nf4" and config.kv_dtype == "fp32":
        # What quantization left alone (embeddings, norms, the head) is still in 16 bit.
        for values in (*model.parameters(), *model.buffers()):
            if values.dtype in (torch.bfloat16, torch.float16):
                values.data = values.data.float()
        model.config.dtype = torch.float32
    return model
