"""The base of an adapter: where it is, and loading it for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from bitsandbytes.nn import Linear4bit
from peft import prepare_model_for_kbit_training
from transformers import AutoConfig
from transformers.utils import is_flash_attn_2_available

from checkpoints.errors import ConfigError, UnsupportedCheckpoint
from checkpoints.load_errors import as_checkpoint_error
from checkpoints.loading import describe_source, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Attention",
    "check_attention",
    "check_base_precision",
    "is_nf4",
    "load_trainable_base",
    "resolve_dtype",
    "resolve_source",
]

Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]


def resolve_source(source: str) -> str:
    """Return a path made absolute, so it is found from any working directory; a hub id as it is."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def is_nf4(source: str) -> bool:
    """Whether the weights at ``source`` are NF4 already."""
    return describe_source(source).kind == "nf4"


def check_base_precision(source: str, settings: Any) -> None:
    """Refuse a base in 8-bit floats, as DeepSeek-V3 is published.

    Its products need kernels of their own, in which no gradient was ever checked here; and a merge would have
    to round the result to 8 bits again.

    Args:
        source: the base, for the message.
        settings: its config, as transformers reads it.

    Raises:
        UnsupportedCheckpoint: it is such a base.
    """
    quantization = getattr(settings, "quantization_config", None) or {}
    if not isinstance(quantization, dict):
        quantization = quantization.to_dict()
    method = str(getattr(quantization.get("quant_method"), "value", quantization.get("quant_method")))
    if "fp8" in method:
        raise UnsupportedCheckpoint(
            f"model = {source} is in 8-bit floats (quant_method {method}), which cannot be trained here; "
            "write it in bf16 first: transformers' from_pretrained(MODEL, quantization_config="
            "FineGrainedFP8Config(dequantize=True)), then save_pretrained; base_quantization = nf4 packs that"
        )


def check_attention(
    attention: Attention,
    device: Literal["auto", "cpu", "cuda"],
    dtype: Literal["auto", "bf16", "fp16", "fp32"],
) -> None:
    """Refuse a FlashAttention that this machine does not have, or that would have to compute in fp32.

    Raises:
        ConfigError: it is asked for, and there is no CUDA GPU or no flash-attn package, or dtype is fp32.
    """
    if attention != "flash_attention_2":
        return
    missing = []
    if device == "cpu" or not torch.cuda.is_available():
        missing.append("a CUDA GPU" if device != "cpu" else "a CUDA GPU, and device = cpu asks for none")
    elif not is_flash_attn_2_available():
        missing.append("the flash-attn package (pip install flash-attn)")
    if missing:
        raise ConfigError(
            f"attention = flash_attention_2 needs {missing[0]}; use attention = sdpa, which on a GPU takes "
            "PyTorch's own FlashAttention where it can"
        )
    if resolve_dtype(dtype, device) == "fp32":
        raise ConfigError(
            "attention = flash_attention_2 and dtype = fp32 clash (here auto may be fp32): "
            "its kernels compute in bf16 and fp16 only; use attention = sdpa, or dtype = fp16"
        )


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
    attention: Attention = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """Load a base to train, or to put an adapter on.

    An NF4 base gets what QLoRA (https://arxiv.org/abs/2305.14314) gives it: every tensor that is not packed
    goes to fp32, so norms and residuals lose nothing; the computation is ``dtype``, by autocast.

    Raises:
        UnsupportedCheckpoint: the base is in 8-bit floats.
        CheckpointError: it cannot be loaded whole, or has no such ``attention``.
    """
    where = describe_source(source)
    if where.kind in ("safetensors", "hub"):
        with as_checkpoint_error(source):
            settings = AutoConfig.from_pretrained(
                where.directory or source, trust_remote_code=trust_remote_code, revision=revision
            )
        check_base_precision(source, settings)
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
    if attention != "auto":
        with as_checkpoint_error(source):
            model.set_attn_implementation(attention)
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
