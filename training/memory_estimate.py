"""How much memory a run takes: weights, gradients, optimizer states, activations.

Everything is computed from the model's structure; it may lie on the meta device. Activations are what
autograd keeps from the forward for the backward pass, as the modelling code of transformers makes it, with
an attention that does not keep its scores (FlashAttention, PyTorch's SDPA). What libraries and allocators
take beside is not in it: about 1 GiB on a CPU or GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from checkpoints.nf4_report import PackedSize, expected_size
from checkpoints.sizes import parameter_count
from training.activation_estimate import activation_bytes, adapted_expert_bytes
from training.config import TrainConfig
from training.loss_estimate import loss_bytes
from training.methods.registry import load_method
from training.moe.setup import trained_routers
from training.optimizers import OPTIMIZERS
from training.precision import autocasts, base_dtype

__all__ = ["MemoryEstimate", "estimate_memory"]

_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes, and what they are for."""

    parameters: int
    """Of the base."""
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    """With the loss and what is there while it is computed."""
    tokens: int
    """Rows times tokens of one forward pass that ``activations`` is for."""

    @property
    def total(self) -> int:
        """The most that is there at once: all of it, when the backward pass of a later step begins."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(config: TrainConfig, base: Any, max_length: int) -> MemoryEstimate:
    """Return what a run of ``config`` takes.

    Args:
        config: with ``dtype`` resolved.
        base: the model of ``config.model``, on the meta device; the method is put on it in place.
        max_length: tokens of a row.
    """
    parameters = parameter_count(base)
    packed = None
    if config.base_quantization == "nf4":
        packed = expected_size(base, double_quantization=config.double_quantization)
    with torch.device("meta"):
        routers = trained_routers(base, config)
        model = load_method(config.method)(base, getattr(config, config.method), routers)
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    trained_bytes = 4 if config.method != "full" else _BYTES[base_dtype(config)]
    frozen = parameters if config.method != "full" else parameters - trainable
    weights = trainable * trained_bytes + _frozen_bytes(config, frozen, packed)
    if autocasts(config):
        # Autocast keeps a copy in 16 bits of every trained weight until the backward pass is over.
        weights += 2 * trainable
    if config.ewc.from_run is not None:
        weights += 8 * trainable  # their earlier values and importances, fp32
    state = OPTIMIZERS[config.optimizer].state_bytes
    tokens = config.batch_size * max_length
    return MemoryEstimate(
        parameters=parameters,
        trainable=trainable,
        weights=weights,
        # Passes of a step that may be done again keep the gradients of those before them apart.
        gradients=trainable * trained_bytes * (2 if config.retry_out_of_memory else 1),
        optimizer=round(trainable * (2 * trained_bytes if state is None else state)),
        activations=tokens * activation_bytes(config, model)
        + adapted_expert_bytes(config, model)
        + loss_bytes(config, model, tokens),
        tokens=tokens,
    )


def _frozen_bytes(config: TrainConfig, frozen: int, packed: PackedSize | None) -> int:
    if packed is None:
        return frozen * _BYTES[base_dtype(config)]
    # Whatever is not packed goes to fp32 (see ``training.base``).
    return packed.bytes + (frozen - packed.parameters) * 4
