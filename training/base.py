"""The base of an adapter: where it is, and loading it for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from bitsandbytes.nn import Linear4bit
from peft import prepare_model_for_kbit_training

from checkpoints.loading import describe_source, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["is_nf4", "load_trainable_base", "resolve_dtype", "resolve_source"]


def resolve_source(source: str) -> str:
    """Return a path made absolute, so it is found from any working directory; a hub id as it is."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def is_nf4(source: str) -> bool:
    """Whether the weights at ``source`` are NF4 already."""
    return describe_source(source).kind == "nf4"


def resolve_dtype(
    dtype: Literal["auto", "bf16", "fp16", "fp32"], device: Literal["auto", "cpu", "cuda"]
) -> Literal["bf16", "fp16", "fp32"]:
    """Return ``dtype``, or for "auto" bf16 where the hardware multiplies it, else fp32.

    A CPU without bf16 instructions takes some 30 times longer in bf16 than in fp32 (forward and backward of
    one layer of a 135M model, AVX2, 2 cores: 1180 ms against 31).
    """
    if dtype != "auto":
        return dtype
    if device != "cpu" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if fast else "fp32"


def load_trainable_base(
    source: str,
    *,
    dtype: Literal["bf16", "fp16", "fp32"],
    device: Literal["auto", "cpu", "cuda"],
    quantization: Literal["nf4"] | None,
    double_quantization: bool = False,
    gradient_checkpointing: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """Load a base to train, or to put an adapter on.

    An NF4 base gets what QLoRA (https://arxiv.org/abs/2305.14314) gives it: every tensor that is not packed
    goes to fp32, so norms and residuals lose nothing; the computation is ``dtype``, by autocast.
    """
    model = load_model(
        source,
        dtype=dtype,
        device=device,
        quantization=None if is_nf4(source) else quantization,
        double_quantization=double_quantization and not is_nf4(source),
        trust_remote_code=trust_remote_code,
        revision=revision,
    )
    if quantization is not None:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        _keep_training_layout(model)
    if gradient_checkpointing:
        # Without re-entry, so the frozen embeddings' output need not ask for a gradient.
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    return model


def _keep_training_layout(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for inference.

    On a CPU with AVX512-BF16 it does so at the first forward pass in ``eval()``, for good: the scales lose
    bits, and the repacked layers pass no gradient on. One evaluation would spoil the rest of the run.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
