"""fp32 weights -> those of a checkpoint, rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from checkpoints.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["round_weights"]


def round_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast the weights of ``model`` in place; those that transformers keeps in fp32 stay there.

    Raises:
        ConfigError: a value is too large for fp16.
    """
    keep = [*(model._keep_in_fp32_modules or []), *(model._keep_in_fp32_modules_strict or [])]
    for name, parameter in model.named_parameters():
        if not any(part in name for part in keep):
            parameter.data = parameter.data.to(dtype)
    if dtype == torch.float16:
        infinite = [name for name, tensor in model.named_parameters() if not torch.isfinite(tensor).all()]
        if infinite:
            raise ConfigError(f"dtype = fp16 cannot hold the values of {infinite[0]}; use bf16 or fp32")
