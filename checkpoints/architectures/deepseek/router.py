"""The gate: which experts a token goes to, and with what weight."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils.generic import maybe_autocast

__all__ = ["DeepseekTopkRouter"]


class DeepseekTopkRouter(nn.Module):
    """Softmax over all experts, then the ``num_experts_per_tok`` largest (equations 9 and 10).

    Always in float32 or wider: in 16 bits, scores of 64 experts round to equal values, and which expert
    wins becomes chance.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.top_k: int = config.num_experts_per_tok
        self.num_experts: int = config.n_routed_experts
        self.hidden_dim: int = config.hidden_size
        self.norm_topk_prob: bool = config.norm_topk_prob
        self.weight = nn.Parameter(torch.empty(self.num_experts, self.hidden_dim))

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Route tokens.

        Args:
            hidden_states: ``[..., hidden]``.

        Returns:
            Logits ``[tokens, experts]``; weights and indices of the chosen experts, both ``[tokens, top_k]``.
        """
        hidden_states = hidden_states.reshape(-1, self.hidden_dim)
        wide = torch.promote_types(hidden_states.dtype, torch.float32)
        with maybe_autocast(device_type=hidden_states.device.type, enabled=False):
            router_logits = F.linear(hidden_states.to(wide), self.weight.to(wide))
            scores = router_logits.softmax(dim=-1)
            weights, chosen = scores.topk(self.top_k, dim=-1)
            if self.norm_topk_prob and self.top_k > 1:
                weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return router_logits, weights, chosen
