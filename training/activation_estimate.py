"""What autograd keeps of each token for the backward pass, from the structure of the model.

As transformers' modelling code makes it, or the functions of ``training/fused``, and with an attention that
does not keep its scores (FlashAttention, PyTorch's SDPA). ``tests/training/test_dry_run.py`` holds it against
what autograd really keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import ParamWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from checkpoints.bottleneck.placement import decoder_layers
from training.config import TrainConfig
from training.fused.apply import is_gated_mlp, is_rms_norm
from training.fused.lora_linear import lora_parts
from training.precision import autocasts, base_dtype

__all__ = ["activation_bytes", "adapted_expert_bytes"]

_FP32 = 4
_MASK = 4  # of dropout: a float on a CPU, a byte on a GPU


def activation_bytes(config: TrainConfig, model: Any) -> int:
    """Return the bytes per token that the layers keep until the backward pass; see ``loss_estimate``, too.

    Args:
        config: with ``dtype`` resolved.
        model: with the method's weights on it; on the meta device is enough.
    """
    text = model.config.get_text_config()
    compute = 2 if config.dtype in ("bf16", "fp16") else _FP32
    _, layers = decoder_layers(model)
    kept = [_layer_bytes(config, layer, text, compute) for layer in layers]
    whole = sum(kept)
    if config.gradient_checkpointing:
        # The input of each layer, and all of one layer's own while it is computed again.
        whole = len(kept) * text.hidden_size * (_FP32 if autocasts(config) else compute) + max(kept)
    hidden = int(text.hidden_size)
    last = _FP32 * hidden  # the norm before the head
    if config.method == "full":
        last += 2 * compute * hidden  # for the gradients of its weight and of the head's
    return whole + last


def adapted_expert_bytes(config: TrainConfig, model: Any) -> int:
    """Return the bytes, whatever the number of tokens, of routed experts that have a LoRA.

    PEFT adds the update to the fused weights of a layer in each pass, and the backward pass needs the sums.
    On packed experts it is added to their output instead.
    """
    if config.base_quantization == "nf4":
        return 0
    size = _FP32 if base_dtype(config) == "fp32" else 2
    _, layers = decoder_layers(model)
    sums = [
        sum(module.get_param().numel() for module in layer.modules() if isinstance(module, ParamWrapper))
        for layer in layers
    ]
    return size * (max(sums) if config.gradient_checkpointing else sum(sums))


def _fused_experts(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the weights that hold all experts of a layer, ``[experts, out, in]``."""
    for module in model.modules():
        if not isinstance(module, nn.Conv1d):  # its weight is 3-D too
            yield from (value for value in module.parameters(recurse=False) if value.ndim == 3)


def _layer_bytes(config: TrainConfig, layer: nn.Module, text: Any, compute: int) -> int:
    """Return what one decoder layer keeps of a token.

    Each product makes autograd keep one thing: its output, which attention, activation or a multiplication
    reads; or, where that only joins the residual, its input, which the operation before keeps. A product
    whose weight is trained, or that has a LoRA beside it, keeps its input as well.
    """
    hidden = int(text.hidden_size)
    full, autocast = config.method == "full", autocasts(config)
    # Autocast makes a bf16 copy of the input for each product, and adapters in fp32 a copy of a bf16 one;
    # else all products of one input share it.
    copies = autocast or compute != _FP32
    adapter = 2 if autocast else _FP32
    chosen = int(getattr(text, "num_experts_per_tok", None) or 1)
    stream = _FP32 if autocast else compute  # precision of what goes from layer to layer
    mlps = [name for name, module in layer.named_modules() if config.fused and is_gated_mlp(module)]
    computed_again = {f"{name}.down_proj" for name in mlps}  # its input
    packed = config.base_quantization == "nf4"
    # bitsandbytes widens what a packed layer gives to the precision of its input, unless it is fused.
    output = stream if packed and not config.fused else compute
    total, shared = 0, set[object]()

    def keep_input(name: str, size: int, width: int, copied: bool) -> int:
        # Layers side by side have one input, and keep it once; what is fused keeps it as it is.
        place = (name.rpartition(".")[0], size) if config.fused else size
        new = copied or place not in shared
        shared.add(place)
        return size * width if new else 0

    for name, module in layer.named_modules():
        if "lora_" in name or "bottleneck_" in name:
            continue  # counted with what they belong to
        if _is_norm(module):
            size = module.weight.numel()
            if config.fused and is_rms_norm(module):
                total += stream * size
            else:
                total += _FP32 * size + (stream * size if full else 0)
        elif isinstance(module, (nn.Linear, Conv1D)):
            into, out = _sizes(module)
            if name.removesuffix(".base_layer") not in computed_again:
                total += compute * into if out == hidden else output * out
            total += keep_input(name, into, compute, autocast) if full else 0
        elif isinstance(module, ParamWrapper):
            if packed:  # else see adapted_expert_bytes
                total += chosen * adapter * (module.in_features + config.lora.rank)
        elif config.fused and type(module) is LoraLinear and lora_parts(module) and (packed or not autocast):
            if name not in computed_again:
                total += keep_input(name, module.in_features, stream, False)
            total += compute * config.lora.rank + (module.in_features if config.lora.dropout else 0)
        elif hasattr(module, "lora_A"):
            dropout = config.lora.dropout > 0
            total += keep_input(name, module.in_features, adapter, copies or dropout)
            total += adapter * config.lora.rank + (_MASK * module.in_features if dropout else 0)
            # With DoRA both outputs, which its scale multiplies.
            total += (compute + adapter) * module.out_features if config.lora.dora else 0
        elif hasattr(module, "bottleneck_down"):
            total += adapter * (hidden + 2 * config.bottleneck.size)
            total += (adapter + _MASK) * hidden if config.bottleneck.dropout else 0
    adapted = config.method == "lora" and config.lora.experts and not packed
    for weight in _fused_experts(layer):
        out, into = weight.shape[1:]
        # What the experts give is multiplied by the router's weights, which keeps it.
        kept = into + out if out == hidden else out
        # A LoRA on an unpacked expert is added to its weight, which then asks for the input as a trained one.
        total += chosen * compute * (kept + (into if full or adapted else 0))
    return total


def _sizes(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    into, out = module.weight.shape  # Conv1D is a Linear whose weight is stored transposed
    return int(into), int(out)


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 1 and type(module).__name__.endswith("Norm")
