"""4-bit NF4 (NormalFloat, QLoRA, arXiv:2305.14314) through bitsandbytes: what it packs and what not.

bitsandbytes replaces ``nn.Linear`` and nothing else. transformers 5 holds the experts of a mixture
as one 3-D parameter, which would stay in 16 bits without a word (bitsandbytes #1849), so a model
with such weights is refused here, by name, until they can be packed.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import BitsAndBytesConfig
from transformers.integrations.bitsandbytes import Bnb4bitDeserialize
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.load_errors import some
from checkpoints.manifest import KeptTensor
from checkpoints.sizes import is_packed, logical_parameters

__all__ = [
    "BLOCK_SIZE",
    "check_packed_layers",
    "check_quantizable",
    "forget_unpacking",
    "keep_scales",
    "kept_tensors",
    "nf4_config",
    "set_compute_dtype",
]

BLOCK_SIZE = 64
"""Weights that share one scale: bitsandbytes' default for 4 bits."""


def nf4_config(compute_dtype: torch.dtype, *, double_quantization: bool = False) -> BitsAndBytesConfig:
    """Return the transformers config that packs Linear layers into NF4 while loading."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_use_double_quant=double_quantization,
    )


def check_quantizable(model: Any, device: str) -> None:
    """Refuse a model that NF4 would leave partly in 16 bits, or that could not run.

    Args:
        model: a transformers model; on the meta device is enough.
        device: "cpu" or "cuda": where it will run.

    Raises:
        UnsupportedCheckpoint: with the names of the weights; or the model is quantized already.
    """
    settings = getattr(model.config, "quantization_config", None)
    if settings is not None:
        settings = settings if isinstance(settings, dict) else settings.to_dict()
        method = settings.get("bnb_4bit_quant_type") or settings.get("quant_method")
        raise UnsupportedCheckpoint(
            f"this model is quantized already ({method}), and packing it again would lose more; "
            "start from its bf16, fp16 or fp32 weights"
        )
    fused = [name for name, parameter in model.named_parameters() if parameter.ndim == 3]
    # A convolution's weight is 3-D too, but it is small and no expert.
    convolutions = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Conv1d)
    }
    fused = [name for name in fused if name not in convolutions]
    if fused:
        raise UnsupportedCheckpoint(
            f"NF4 would leave the fused expert weights of this model in 16 bits: {some(fused)}. "
            "Packing them is not built yet; serve it in bf16"
        )
    kept = get_keys_to_not_convert(model)
    packed = [
        (name, _in_features(module))
        for name, module in model.named_modules()
        if (type(module) is torch.nn.Linear or isinstance(module, Conv1D))
        and should_convert_module(name, kept)
    ]
    if not packed:
        raise UnsupportedCheckpoint("this model has no Linear layer that NF4 could pack")
    _check_in_features(packed, device)


def check_packed_layers(model: Any, device: str) -> None:
    """Refuse to run 4-bit layers on a CPU that its kernels cannot take.

    Raises:
        UnsupportedCheckpoint: with the names of the layers.
    """
    packed = [
        (name, _in_features(module))
        for name, module in model.named_modules()
        if is_packed(getattr(module, "weight", None))
    ]
    _check_in_features(packed, device)


def kept_tensors(model: Any) -> list[KeptTensor]:
    """Return every parameter of an NF4 model that was not packed, with the reason."""
    tied = {name for pair in model.all_tied_weights_keys.items() for name in pair}
    embeddings = model.get_input_embeddings()
    head = model.get_output_embeddings()
    modules = dict(model.named_modules())
    kept = []
    for name, parameter, _ in logical_parameters(model):
        if is_packed(parameter):
            continue
        module = modules[name.rpartition(".")[0]]
        if module is embeddings:
            reason = "embedding, tied with lm_head" if name in tied else "embedding"
        elif module is head:
            reason = "lm_head (tied)" if name in tied else "lm_head"
        elif name.endswith("bias"):
            reason = "bias"
        elif parameter.ndim == 1:
            reason = "norm" if "norm" in name.lower() or "ln_" in name.lower() else "vector"
        else:
            reason = f"not a Linear layer ({type(module).__name__})"
        kept.append(KeptTensor(name, str(parameter.dtype).removeprefix("torch."), reason))
    return kept


def set_compute_dtype(model: Any, dtype: torch.dtype) -> None:
    """Make every 4-bit layer of a loaded model multiply in ``dtype``."""
    for module in model.modules():
        if is_packed(getattr(module, "weight", None)):
            module.compute_dtype = dtype


def forget_unpacking(model: Any) -> None:
    """Let a model that was loaded from an NF4 directory be saved again.

    transformers 5.23 notes how it read the packed weights and wants to reverse that when it saves; for
    bitsandbytes there is no reverse, and none is needed: the weights save themselves.
    """
    conversions = getattr(model, "_weight_conversions", None) or []
    model._weight_conversions = [
        conversion
        for conversion in conversions
        if not any(isinstance(step, Bnb4bitDeserialize) for step in getattr(conversion, "operations", ()))
    ]


def keep_scales(model: Any) -> None:
    """Let a model that has run on a CPU with AVX-512 be saved as it was loaded.

    There bitsandbytes 0.50.2 lays weights and scales out anew at the first pass, and when it saves it takes
    back the weights alone: scales are written transposed, and the checkpoint is damaged. (It rounds them to
    bf16, too; that stays.)
    """
    for module in model.modules():
        if is_packed(getattr(module, "weight", None)):
            module.register_state_dict_pre_hook(_restore_scales)


def _restore_scales(module: Any, prefix: str, keep_vars: bool) -> None:
    state = getattr(module.weight, "quant_state", None)
    if state is None or not getattr(state, "packing_format_for_cpu", False):
        return
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    scales = state.absmax  # [in_features / block, out_features] in bf16
    module.weight.data, state = _convert_weight_packed_for_cpu_inverse(module.weight.data, state)
    if not state.nested:  # with double quantization it does take them back
        state.absmax = scales.T.reshape(-1).float().contiguous()
    module.weight.quant_state = state


def _in_features(module: Any) -> int:
    # Conv1D (GPT-2) is a Linear whose weight is stored transposed.
    return int(module.weight.shape[0] if isinstance(module, Conv1D) else module.in_features)


def _check_in_features(layers: list[tuple[str, int]], device: str) -> None:
    odd = [f"{name} ({size})" for name, size in layers if size % BLOCK_SIZE]
    if odd and device == "cpu":
        raise UnsupportedCheckpoint(
            f"NF4 on a CPU needs in_features that are multiples of {BLOCK_SIZE}; these are not: {some(odd)}. "
            "Use bf16 here, or a GPU"
        )
