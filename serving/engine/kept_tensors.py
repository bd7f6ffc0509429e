"""What a conversion to int8 or int4 left in 16 or 32 bits, for the version's manifest."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from checkpoints.manifest import KeptTensor

__all__ = ["kept_tensors"]


def kept_tensors(
    checkpoint: Path, unpacked: Collection[str], dtype: str, *, trust_remote_code: bool = False
) -> list[KeptTensor]:
    """Return the parameters of ``checkpoint`` that were not packed, in the model's order.

    No engine packs a vector. Of the matrices those count that the written model still holds as numbers;
    asking which are packed would miss those that conversion has renamed.

    Args:
        checkpoint: holds the model's ``config.json``; no weights are read.
        unpacked: names of the parameters with two or more dimensions that the written model holds unpacked.
        dtype: what it holds them in.
        trust_remote_code: run Python code that comes with the checkpoint.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(
        checkpoint, trust_remote_code=trust_remote_code, local_files_only=True
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    embeddings = {id(model.get_input_embeddings().weight)}
    kept = []
    for name, tensor in model.named_parameters():
        if tensor.ndim < 2:
            kept.append(KeptTensor(name, dtype, "norm or bias"))
        elif name in unpacked:
            reason = "embedding" if id(tensor) in embeddings else "not packed by the engine's quantizer"
            kept.append(KeptTensor(name, dtype, reason))
    return kept
