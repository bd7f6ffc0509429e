"""A model's linear layers brought to eight bits, in the form that this machine computes."""

from __future__ import annotations

import logging

import torch
from torch import nn
from transformers import PreTrainedModel

from serving.engine.torch.compiled.linear.layer import compiled_in
from serving.engine.torch.int8 import Int8Linear
from serving.engine.torch.replacing import copy_parameters, replace_layers

__all__ = ["round_linear_layers"]

logger = logging.getLogger(__name__)


def round_linear_layers(model: PreTrainedModel, dtype: torch.dtype) -> int:
    """Round the weights of the plain ``nn.Linear`` of ``model`` to eight bits; return how many layers.

    Those that no kernel computes here (``compiled/linear/int8_kernel.py``) have the rounded numbers in
    ``dtype``. Embeddings, norms and biases are brought to it.

    Args:
        model: with the numbers of its checkpoint; rounding them twice would cost precision.
        dtype: what it computes in afterwards.
    """
    unpacked = 0

    def rounded(layer: nn.Linear) -> nn.Module:
        nonlocal unpacked
        packed = Int8Linear(layer, dtype)
        if compiled_in(packed) is not None:
            return packed
        unpacked += 1
        return packed.plain()

    replaced = replace_layers(model, lambda layer: type(layer) is nn.Linear, rounded)
    for value in model.parameters():
        value.data = value.data.to(dtype)
    copy_parameters(model)
    model.config.dtype = dtype
    if unpacked:
        logger.warning(
            "%d of %d linear layers have int8 weights that are held and computed in %s, as there is no "
            "kernel for them here (it needs AVX-512 VNNI and Numba): --engine openvino is faster and smaller",
            unpacked,
            replaced,
            str(dtype).partition(".")[2],
        )
    return replaced
