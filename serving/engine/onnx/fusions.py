"""Layers rewritten as single ONNX nodes before the export: fewer nodes, packed weights.

A decode step of a small model runs some two thousand nodes, so their number costs time. Each
rewrite computes the same numbers; one that depends on the modelling code is first tried on random
input and left out where it does not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from serving.engine.onnx.experts import DenseExperts, is_fused_experts
from serving.engine.onnx.projection import Projection

__all__ = ["fused"]


@contextmanager
def fused(model: Any, *, keep: frozenset[nn.Module] = frozenset()) -> Iterator[None]:
    """Rewrite projections and RMS norms of ``model`` for good, and rotary embeddings meanwhile.

    Args:
        model: a causal LM in float32.
        keep: projections to leave as they are.
    """
    rotations = {sys.modules[type(part).__module__] for part in model.modules()}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child not in keep:
                setattr(parent, name, Projection(child.weight.data.t(), child.bias))
            elif isinstance(child, Conv1D):
                setattr(parent, name, Projection(child.weight.data, child.bias))
            elif is_fused_experts(child):
                setattr(parent, name, DenseExperts(child))
            elif _is_rms_norm(child):
                setattr(parent, name, _RMSNorm(child))
    with ExitStack() as stack:
        for module in rotations:
            if _rotates_halves(getattr(module, "apply_rotary_pos_emb", None)):
                stack.enter_context(_one_node_rotation(module))
        yield


class _RMSNorm(nn.Module):
    """``weight * x / sqrt(mean(x^2) + epsilon)`` as one node."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight: Any = norm.weight
        self._epsilon = _epsilon(norm)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        normalized: torch.Tensor = torch.onnx.ops.symbolic(
            "RMSNormalization",
            (states, self.weight),
            {"axis": -1, "epsilon": self._epsilon, "stash_type": 1},
            dtype=states.dtype,
            shape=states.shape,
        )
        return normalized


def _epsilon(norm: Any) -> float:
    return float(getattr(norm, "variance_epsilon", getattr(norm, "eps", None)) or 0.0)


def _is_rms_norm(module: nn.Module) -> bool:
    """Whether ``module`` is an RMS norm over its last axis; Gemma's, which adds 1 to its weight, is none."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, torch.Tensor):
        return False
    sample = torch.randn((3, weight.shape[-1]), generator=torch.Generator().manual_seed(0))
    scaled = weight * sample * torch.rsqrt(sample.pow(2).mean(-1, keepdim=True) + _epsilon(module))
    with torch.inference_mode():
        return torch.allclose(module(sample), scaled, rtol=1e-5, atol=1e-6)


def _rotate(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate ``[batch, heads, length, dim]`` by ``cos``, ``sin`` ``[batch, length, dim]``, halves equal."""
    half = cos.shape[-1] // 2
    cos, sin = cos[..., :half], sin[..., :half]
    rotated = [torch.onnx.ops.rotary_embedding(states, cos, sin) for states in (query, key)]
    return rotated[0], rotated[1]


def _rotates_halves(function: Any) -> bool:
    """Whether ``function`` is the usual ``apply_rotary_pos_emb``: pairs are one half of the width apart."""
    if function is None:
        return False
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn((1, heads, 3, 8), generator=draw) for heads in (2, 1))
    cos, sin = (torch.randn((1, 3, 4), generator=draw).repeat(1, 1, 2) for _ in range(2))
    try:
        theirs = function(query, key, cos, sin)
    except (TypeError, ValueError, RuntimeError):
        return False
    ours = _rotate(query, key, cos, sin)
    return all(torch.allclose(one, other, atol=1e-5) for one, other in zip(theirs, ours, strict=True))


@contextmanager
def _one_node_rotation(module: Any) -> Iterator[None]:
    original = module.apply_rotary_pos_emb

    def rotate(query: Any, key: Any, cos: Any, sin: Any, *args: Any, **kwargs: Any) -> Any:
        whole = cos.shape[-1] == query.shape[-1] and not args and not kwargs
        return _rotate(query, key, cos, sin) if whole else original(query, key, cos, sin, *args, **kwargs)

    module.apply_rotary_pos_emb = rotate
    try:
        yield
    finally:
        module.apply_rotary_pos_emb = original
