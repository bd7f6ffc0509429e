"""The feed-forward layer of DeepSeek-MoE: gate, routed experts, shared experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from checkpoints.architectures.deepseek.experts import DeepseekExperts, DeepseekSharedExperts
from checkpoints.architectures.deepseek.router import DeepseekTopkRouter

__all__ = ["DeepseekMoE"]


class DeepseekMoE(nn.Module):
    """The weighted sum of the chosen experts, plus the shared ones (equation 8, without the residual)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.gate = DeepseekTopkRouter(config)
        self.experts = DeepseekExperts(config)
        self.shared_experts = DeepseekSharedExperts(config) if config.n_shared_experts else None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return ``[batch, length, hidden]`` for ``hidden_states`` of that shape."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        _, weights, chosen = self.gate(tokens)
        output: torch.Tensor = self.experts(tokens, chosen, weights).reshape(hidden_states.shape)
        if self.shared_experts is not None:
            output = output + self.shared_experts(hidden_states)
        return output
