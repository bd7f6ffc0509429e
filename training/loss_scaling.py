"""Computing in fp16: the loss is scaled up, so that small gradients are numbers other than 0.

The scale begins high and is halved when gradients overflow; that step is skipped. After 2,000 steps without,
it is doubled (https://arxiv.org/abs/1710.03740, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Trainer

from checkpoints.errors import ConfigError
from training.config import TrainConfig
from training.precision import base_dtype

__all__ = ["LOWEST_SCALE", "check_fp16", "check_fp16_settings", "loss_scale", "scale_losses"]

LOWEST_SCALE = 1.0
"""Gradients that overflow without being scaled up are no numbers for another reason."""

_FIRST_SCALE = 2.0**16


def check_fp16_settings(config: TrainConfig) -> None:
    """Refuse from the settings alone what :func:`check_fp16` would refuse after the data are encoded.

    Args:
        config: with the base's own quantization, and ``dtype`` no longer "auto".

    Raises:
        ConfigError: routers would be trained beside a LoRA, on a base in fp16.
    """
    trained = config.moe.router in ("trainable", "warmup")
    if config.dtype == "fp16" and trained and base_dtype(config) == "fp16" and not config.base_quantization:
        raise ConfigError(
            f"dtype = fp16 and moe.router = {config.moe.router} clash: routers would be trained in fp16, "
            "where small steps are lost; use dtype = bf16 or fp32, or moe.router = frozen"
        )


def check_fp16(config: TrainConfig, model: nn.Module) -> None:
    """Refuse what would step through fp16 weights, whose gradients cannot be scaled back.

    Raises:
        ConfigError: a weight that is trained is in fp16.
    """
    if config.dtype != "fp16":
        return
    trained = [(name, one.dtype) for name, one in model.named_parameters() if one.requires_grad]
    halved = [name for name, dtype in trained if dtype == torch.float16]
    if halved:
        raise ConfigError(
            f"dtype = fp16, but {halved[0]} would be trained in fp16, where small steps are lost; use "
            "dtype = bf16 or fp32, or moe.router = frozen"
        )


def scale_losses(config: TrainConfig, trainer: Trainer) -> None:
    """Have ``trainer`` scale its losses where ``config.dtype`` is fp16.

    On a GPU accelerate 1.15 does so by itself. On a CPU it leaves fp16 out without a word.
    """
    accelerator = trainer.accelerator
    if config.dtype == "fp16" and accelerator.device.type == "cpu":
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=_FIRST_SCALE)


def loss_scale(accelerator: Any) -> float | None:
    """Return what losses are multiplied by in this step; None where they are not."""
    return None if accelerator.scaler is None else float(accelerator.scaler.get_scale())
