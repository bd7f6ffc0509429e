"""What NF4 packed, at how many bytes, and every tensor it left as it was, with the reason.

The figures of packed weights are of blocks and scales. The lookup tables that bitsandbytes stores with every
layer (a kilobyte, whatever the layer's size) are no part of them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from checkpoints.manifest import KeptTensor, Manifest
from checkpoints.nf4 import packable_layers
from checkpoints.nf4_experts import NF4Experts, fused_experts, fused_projections
from checkpoints.nf4_packing import packed_bytes
from checkpoints.nf4_routing import routing_reasons
from checkpoints.sizes import is_packed, logical_parameters

__all__ = [
    "LIMIT",
    "LIMIT_DOUBLE",
    "PackedSize",
    "check_packed_size",
    "expected_size",
    "kept_tensors",
    "packed_size",
    "render_packing",
]

LIMIT = 0.57
"""Bytes per packed weight: half a byte and a 64th of a 4-byte scale are 0.5625."""

LIMIT_DOUBLE = 0.53
"""The same with double quantization, where the scale takes one byte and a little."""

_ENDS = 16
"""Bytes that one matrix may take beyond the limit: the scales of its last, shorter blocks."""


@dataclass(frozen=True)
class PackedSize:
    """The packed weights of a model: Linear layers and experts."""

    parameters: int
    """Weights they stand for."""
    bytes: int
    """Bytes of blocks and scales."""
    matrices: int
    """Linear layers, and experts times projections."""

    @property
    def bytes_per_parameter(self) -> float:
        """Bytes that one weight takes."""
        return self.bytes / self.parameters


def packed_size(model: Any) -> PackedSize:
    """Measure the packed weights of a loaded model."""
    modules = dict(model.named_modules())
    parameters = stored = matrices = 0
    for name, parameter, count in logical_parameters(model):
        module = modules[name.rpartition(".")[0]]
        if is_packed(parameter):
            state = parameter.quant_state
            scales = [state.absmax, *([state.state2.absmax, state.offset] if state.nested else [])]
            stored += parameter.nbytes + sum(values.nbytes for values in scales)
            matrices += 1
        elif isinstance(module, NF4Experts) and not _is_kept(module, name):
            stored += 0 if name.endswith("_quant_map") else parameter.nbytes
            matrices += module.num_experts if count else 0
        else:
            continue
        parameters += count
    return PackedSize(parameters, stored, matrices)


def expected_size(model: Any, *, double_quantization: bool) -> PackedSize:
    """Return what packing will take, for a model that is not packed; on the meta device is enough."""
    modules = dict(model.named_modules())
    sizes = [(1, modules[name].weight.numel()) for name in packable_layers(model)]
    for fused in fused_experts(model).values():
        for one in fused_projections(fused) or ():
            sizes.append((len(getattr(fused, one.name)), one.rows * one.columns))
    return PackedSize(
        sum(matrices * size for matrices, size in sizes),
        sum(packed_bytes(*item, double_quantization=double_quantization) for item in sizes),
        sum(matrices for matrices, _ in sizes),
    )


def check_packed_size(model: Any, *, double_quantization: bool) -> PackedSize:
    """Assert that a model that was just packed takes what NF4 takes.

    Raises:
        AssertionError: it takes more, or a weight that was to be packed is not.
    """
    size = packed_size(model)
    limit = LIMIT_DOUBLE if double_quantization else LIMIT
    if size.bytes > limit * size.parameters + _ENDS * size.matrices:
        raise AssertionError(
            f"packed weights take {size.bytes_per_parameter:.4f} bytes each, more than {limit}"
        )
    left = [*packable_layers(model), *fused_experts(model)]
    if left:
        raise AssertionError(f"not packed: {', '.join(left)}")
    return size


def kept_tensors(model: Any) -> list[KeptTensor]:
    """Return every tensor of an NF4 model that was not packed, with the reason."""
    tied = {name for pair in model.all_tied_weights_keys.items() for name in pair}
    modules = dict(model.named_modules())
    routing = routing_reasons(model)
    kept = []
    for name, parameter, _ in logical_parameters(model):
        module = modules[name.rpartition(".")[0]]
        if is_packed(parameter) or not _is_kept(module, name):
            continue
        reason = routing.get(module) or _reason(model, module, name, parameter)
        if name in tied:
            reason = {"embedding": "embedding, tied with lm_head", "lm_head": "lm_head (tied)"}.get(
                reason, reason
            )
        kept.append(_kept(name, parameter, reason))
    for name, buffer in model.named_buffers():
        path, _, own_name = name.rpartition(".")
        module = modules[path]
        if buffer.is_floating_point() and own_name not in module._non_persistent_buffers_set:
            kept.append(_kept(name, buffer, routing.get(module, "buffer")))
    return kept


def render_packing(manifest: Manifest) -> str:
    """Describe what was packed and what was not; layers of the same kind on one line."""
    quantization = manifest.quantization or {}
    lines = [
        f"packed          {quantization.get('packed_parameters', 0):,} weights, "
        f"{quantization.get('packed_bytes_per_parameter', 0):.4f} bytes each",
        f"whole model     {manifest.parameters:,} parameters, {manifest.bytes_per_parameter:.2f} bytes each",
    ]
    kinds = Counter(
        (re.sub(r"\.\d+\.", ".*.", one.name), one.dtype, one.reason) for one in manifest.kept_16bit
    )
    title = "not packed"
    for (name, dtype, reason), count in kinds.items():
        times = f" ({count} times)" if count > 1 else ""
        lines.append(f"{title:<15} {name}{times}, {dtype}: {reason}")
        title = ""
    return "\n".join(lines)


def _reason(model: Any, module: torch.nn.Module, name: str, parameter: torch.Tensor) -> str:
    if module is model.get_input_embeddings():
        return "embedding"
    if module is model.get_output_embeddings():
        return "lm_head"
    if name.endswith("bias"):
        return "bias"
    if parameter.ndim == 1:
        return "norm" if "norm" in name.lower() or "ln_" in name.lower() else "vector"
    return f"not a Linear layer ({type(module).__name__})"


def _kept(name: str, tensor: torch.Tensor, reason: str) -> KeptTensor:
    return KeptTensor(name, str(tensor.dtype).removeprefix("torch."), reason)


def _is_kept(module: torch.nn.Module, name: str) -> bool:
    """Whether a parameter of ``module`` is neither packed nor a scale."""
    return not isinstance(module, NF4Experts) or module.logical_count(name.rpartition(".")[2]) is None
