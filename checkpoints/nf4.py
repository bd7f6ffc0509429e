"""4-bit NF4 (NormalFloat, QLoRA, arXiv:2305.14314): what is packed, and what must be refused.

Linear layers are bitsandbytes' own; the experts of a mixture, which it leaves alone, are ours
(``nf4_experts``). Whatever would stay in 16 bits without a word is refused here, by name.
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
from checkpoints.nf4_experts import fused_experts, fused_projections, packed_experts
from checkpoints.nf4_packing import BLOCK_SIZE
from checkpoints.nf4_quantizer import NF4Config
from checkpoints.nf4_routing import routing_layers
from checkpoints.sizes import is_packed

__all__ = [
    "BLOCK_SIZE",
    "check_quantizable",
    "forget_unpacking",
    "keep_plain_layout",
    "keep_scales",
    "nf4_config",
    "packable_layers",
    "set_compute_dtype",
]

_CPU_ROWS = 32
"""Output features that bitsandbytes' layout for CPUs with AVX-512 takes together."""


def nf4_config(
    model: Any, compute_dtype: torch.dtype, *, double_quantization: bool = False
) -> BitsAndBytesConfig:
    """Return the transformers config that packs ``model`` into NF4 while loading.

    It is bitsandbytes' own, which plain transformers reads, unless the model has fused experts.

    Args:
        model: the model; on the meta device is enough.
        compute_dtype: what packed layers multiply in.
        double_quantization: also quantize the scales.
    """
    settings: dict[str, Any] = {
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": compute_dtype,
        "bnb_4bit_use_double_quant": double_quantization,
    }
    return (
        NF4Config(**settings) if fused_experts(model) else BitsAndBytesConfig(load_in_4bit=True, **settings)
    )


def check_quantizable(model: Any) -> None:
    """Refuse a model that NF4 would leave partly in 16 bits.

    Args:
        model: a transformers model; on the meta device is enough.

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
    unknown = _unknown_stacks(model)
    if unknown:
        raise UnsupportedCheckpoint(
            f"NF4 would leave these weights of the model in 16 bits: {some(unknown)}. They look like fused "
            "experts of a kind that is not known here (known: gate_up_proj and down_proj, called as "
            "transformers' use_experts_implementation does); serve the model in bf16"
        )
    if not packable_layers(model) and not fused_experts(model):
        raise UnsupportedCheckpoint("this model has no Linear layer that NF4 could pack")


def packable_layers(model: Any) -> list[str]:
    """Return the names of the Linear layers that are packed: all but the head and what routes tokens."""
    kept = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ()), *routing_layers(model)]
    return [
        name
        for name, module in model.named_modules()
        if (type(module) is torch.nn.Linear or isinstance(module, Conv1D))
        and should_convert_module(name, kept)
    ]


def set_compute_dtype(model: Any, dtype: torch.dtype) -> None:
    """Make every 4-bit layer of a loaded model multiply in ``dtype``."""
    for module in model.modules():
        if is_packed(getattr(module, "weight", None)):
            module.compute_dtype = dtype
    for experts in packed_experts(model).values():
        experts.compute_dtype = dtype


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


def keep_plain_layout(model: Any) -> None:
    """Let Linear layers of any size run on a CPU with AVX-512.

    There bitsandbytes 0.50.2 lays weights out anew at the first pass, and fails on layers whose input is no
    multiple of 64 or whose output is no multiple of 32. Those keep the layout they were saved in, and are
    dequantized at each pass.
    """
    for module in model.modules():
        if not is_packed(getattr(module, "weight", None)):
            continue
        if module.in_features % BLOCK_SIZE or module.out_features % _CPU_ROWS:
            module.support_avx512bf16_for_cpu = False


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


def _unknown_stacks(model: Any) -> list[str]:
    """Return the 3-D weights that nothing here packs; a convolution's is small, and no stack."""
    return [
        f"{name}.{parameter_name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if not isinstance(module, torch.nn.Conv1d) and fused_projections(module) is None
        for parameter_name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3
    ]
