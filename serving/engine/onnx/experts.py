"""Mixture-of-experts layers as plain projections, every expert over every token.

Hugging Face fuses the experts of a layer into one 3-D weight and picks from it token by token: a
graph that gathers megabytes of weights for each token. Here each expert is a pair of matrices of
its own, which onnxruntime packs and quantizes like any other; tokens that did not choose an expert
weigh 0. That computes more than was chosen, but a decode step of many requests reads nearly all
experts anyway, and its memory is bounded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from checkpoints.errors import UnsupportedCheckpoint
from serving.engine.onnx.projection import Projection

__all__ = ["DenseExperts", "is_fused_experts"]


def is_fused_experts(module: nn.Module) -> bool:
    """Whether ``module`` holds the experts of a layer as 3-D weights."""
    return getattr(getattr(module, "down_proj", None), "ndim", 0) == 3


class DenseExperts(nn.Module):
    """The same experts, one after the other; takes their weights from ``fused``.

    Args:
        fused: a module of the kind that ``transformers``' ``use_experts_implementation`` decorates.

    Raises:
        UnsupportedCheckpoint: the experts have no gate, or norms of their own.
    """

    def __init__(self, fused: Any) -> None:
        super().__init__()
        gated = getattr(fused, "has_gate", False) and hasattr(fused, "gate_up_proj")
        if not gated or getattr(fused, "has_post_expert_norm", False):
            raise UnsupportedCheckpoint(
                f"the onnx engine does not know experts like {type(fused).__name__}; use the torch engine"
            )
        self._gate = fused._apply_gate
        biased = bool(getattr(fused, "has_bias", False))
        transposed = bool(getattr(fused, "is_transposed", False))
        self.gate_up = nn.ModuleList(_projections(fused, "gate_up_proj", transposed, biased))
        self.down = nn.ModuleList(_projections(fused, "down_proj", transposed, biased))

    def forward(
        self, states: torch.Tensor, chosen: torch.Tensor, chosen_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return ``[tokens, width]`` for ``states`` of that shape; ``chosen`` is ``[tokens, top_k]``."""
        total = torch.zeros_like(states)
        for expert, (gate_up, down) in enumerate(zip(self.gate_up, self.down, strict=True)):
            weight = (chosen_weights * (chosen == expert)).sum(dim=-1, keepdim=True)
            total = total + weight * down(self._gate(gate_up(states)))
        return total


def _projections(fused: Any, name: str, transposed: bool, biased: bool) -> list[Projection]:
    """Take ``[experts, out, in]`` (``[experts, in, out]`` if ``transposed``) apart; delete the whole."""
    weights = getattr(fused, name).data
    biases = getattr(fused, f"{name}_bias").data if biased else [None] * len(weights)
    parts = [
        Projection(weight if transposed else weight.t(), bias)
        for weight, bias in zip(weights, biases, strict=True)
    ]
    delattr(fused, name)
    return parts
