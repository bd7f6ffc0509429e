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

__all__ = ["DenseExperts", "is_fused_experts"]


def is_fused_experts(module: nn.Module) -> bool:
    """Whether ``module`` holds the experts of a layer as 3-D weights."""
    return getattr(getattr(module, "down_proj", None), "ndim", 0) == 3


class DenseExperts(nn.Module):
    """The same experts, one after the other; takes their weights from ``fused``.

    Args:
        fused: a module of the kind that ``transformers``' ``use_experts_implementation`` decorates.

    Raises:
        UnsupportedCheckpoint: the experts have biases, no gate, or norms of their own.
    """

    def __init__(self, fused: Any) -> None:
        super().__init__()
        plain = getattr(fused, "has_gate", False) and hasattr(fused, "gate_up_proj")
        if not plain or getattr(fused, "has_bias", False) or getattr(fused, "has_post_expert_norm", False):
            raise UnsupportedCheckpoint(
                f"the onnx engine does not know experts like {type(fused).__name__}; use the torch engine"
            )
        self._gate = fused._apply_gate
        transposed = bool(getattr(fused, "is_transposed", False))
        self.gate_up = nn.ParameterList(_matrices(fused.gate_up_proj, transposed=transposed))
        del fused.gate_up_proj
        self.down = nn.ParameterList(_matrices(fused.down_proj, transposed=transposed))
        del fused.down_proj

    def forward(
        self, states: torch.Tensor, chosen: torch.Tensor, chosen_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return ``[tokens, width]`` for ``states`` of that shape; ``chosen`` is ``[tokens, top_k]``."""
        total = torch.zeros_like(states)
        for expert, (gate_up, down) in enumerate(zip(self.gate_up, self.down, strict=True)):
            weight = (chosen_weights * (chosen == expert)).sum(dim=-1, keepdim=True)
            total = total + weight * torch.matmul(self._gate(torch.matmul(states, gate_up)), down)
        return total


def _matrices(weight: torch.Tensor, *, transposed: bool) -> list[nn.Parameter]:
    """``[experts, out, in]`` (or ``[experts, in, out]``) -> one ``[in, out]`` per expert."""
    return [
        nn.Parameter((one if transposed else one.t()).contiguous(), requires_grad=False)
        for one in weight.data
    ]
