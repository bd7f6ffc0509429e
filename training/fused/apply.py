"""Compute a model's layers by the fused functions, inside a block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from training.fused.gated_mlp import gated_down, gated_product
from training.fused.lora_linear import LoraParts, lora_linear, lora_parts
from training.fused.rms_norm import rms_norm

__all__ = ["computed_by", "fused_layers", "is_gated_mlp", "is_rms_norm"]

logger = logging.getLogger(__name__)

_LORA = (LoraLinear, LoraLinear4bit)
_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
# What rounding may make of one layer's values, relative to the largest: they are sums of some thousand terms.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}


@contextmanager
def fused_layers(model: nn.Module) -> Iterator[int]:
    """Compute LoRA layers, gated MLPs and RMS norms of ``model`` by fused functions inside the block.

    Packed layers without a LoRA keep bitsandbytes' code, but not the copies of their outputs in fp32.

    Norms and MLPs are known by their form, and tried out: one of each class is held against its own code, and
    a class that computes something else (a norm with ``1 + weight``, say) keeps its own.

    Args:
        model: a causal language model of transformers, which a method may have adapted.

    Yields:
        How many modules are computed so.
    """
    verdicts: dict[type[nn.Module], bool] = {}
    count = 0
    with ExitStack() as stack:
        for module in model.modules():
            forward: Callable[..., Tensor]
            if type(module) in _LORA:
                forward = partial(_lora_forward, module, module.forward)
            elif type(module) is Linear4bit:
                forward = partial(_packed_forward, module, module.forward)
            elif is_rms_norm(module):
                forward = partial(_norm_forward, module, module.forward)
            elif is_gated_mlp(module):
                forward = partial(_mlp_forward, module, module.forward)
            else:
                continue
            kind = type(module)
            if kind not in (*_LORA, Linear4bit) and kind not in verdicts:
                verdicts[kind] = _agrees(module, forward)
            if not verdicts.get(kind, True):
                continue
            stack.enter_context(computed_by(module, forward))
            count += 1
        refused = sorted(kind.__name__ for kind, fine in verdicts.items() if not fine)
        if refused:
            logger.info("%s: not what it looks like, so it keeps its own code", ", ".join(refused))
        yield count


def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module has the form of transformers' RMS norms."""
    weight = getattr(module, "weight", None)
    name = type(module).__name__
    return name.endswith("RMSNorm") and isinstance(weight, Tensor) and _epsilon(module) is not None


def is_gated_mlp(module: nn.Module) -> bool:
    """Whether a module has the form of transformers' MLPs with a gate, and SiLU as the activation."""
    act = getattr(module, "act_fn", None)
    return isinstance(act, nn.SiLU | SiLUActivation) and all(
        isinstance(getattr(module, name, None), nn.Module) for name in _PROJECTIONS
    )


def _epsilon(norm: nn.Module) -> float | None:
    found = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return found if isinstance(found, float) else None


def _lora_forward(layer: Any, own: Callable[..., Tensor], inputs: Tensor, *more: Any, **named: Any) -> Tensor:
    parts = None if more or named else _parts(layer, inputs)
    return own(inputs, *more, **named) if parts is None else lora_linear(inputs, parts)


def _parts(layer: Any, inputs: Tensor) -> LoraParts | None:
    """Take a layer apart, unless its own code would give these inputs' products another precision."""
    parts = lora_parts(layer)
    if parts is None or (parts.packed is None and _autocasts(inputs)):
        return None
    if parts.dtype == inputs.dtype:
        return parts
    return parts if parts.packed is not None and _casts_to(parts.dtype, inputs) else None


def _packed_forward(layer: Any, own: Callable[..., Tensor], inputs: Tensor) -> Tensor:
    # What it gives is as precise as its product, whatever it is widened to; autocast does not ask for that.
    compute = layer.compute_dtype
    return own(inputs.to(compute) if compute is not None and _casts_to(compute, inputs) else inputs)


def _norm_forward(norm: Any, own: Callable[..., Tensor], inputs: Tensor) -> Tensor:
    epsilon = _epsilon(norm)
    if norm.weight.dtype != inputs.dtype or epsilon is None:
        return own(inputs)
    return rms_norm(inputs, norm.weight, epsilon)


def _mlp_forward(mlp: Any, own: Callable[..., Tensor], inputs: Tensor) -> Tensor:
    gate, up = mlp.gate_proj(inputs), mlp.up_proj(inputs)
    down = mlp.down_proj
    if type(down) in _LORA:
        parts = _parts(down, gate)
        if parts is not None and parts.dtype == gate.dtype == up.dtype:
            return gated_down(gate, up, parts)
    output: Tensor = down(gated_product(gate, up))
    return output


def _autocasts(inputs: Tensor) -> bool:
    return torch.is_autocast_enabled(inputs.device.type)


def _casts_to(dtype: torch.dtype, inputs: Tensor) -> bool:
    return _autocasts(inputs) and torch.get_autocast_dtype(inputs.device.type) == dtype


@contextmanager
def computed_by(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Compute ``module`` by ``forward`` inside the block, hooks and all."""
    # An attribute of the instance, found before the class's method, and still called with all hooks.
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def _agrees(module: nn.Module, forward: Callable[..., Tensor]) -> bool:
    """Hold a module's fused computation against its own, on random input, output and gradient."""
    weight = getattr(module, "weight", None)
    if weight is None:
        gate: Any = module.gate_proj
        weight = gate.weight
        width = int(gate.in_features)
    else:
        width = weight.shape[-1]
    dtype = weight.dtype if weight.dtype in _TOLERANCE else torch.float32
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(4, width, generator=generator).to(weight.device, dtype)
    training = module.training
    module.eval()  # dropout would make the two differ
    try:
        found = []
        with torch.enable_grad():
            for function in (module.forward, forward):
                inputs = sample.clone().requires_grad_()
                output = function(inputs)
                # Any weights but equal ones: the squares of a normalised vector add up to a constant.
                towards = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
                (gradient,) = torch.autograd.grad((output.float() * towards).sum(), inputs)
                found.append((output.detach().float(), gradient.float()))
    finally:
        module.train(training)
    (own, own_gradient), (fused, fused_gradient) = found
    return _close(own, fused, dtype) and _close(own_gradient, fused_gradient, dtype)


def _close(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    return bool((one - other).abs().max() <= _TOLERANCE[dtype] * one.abs().max())
