"""The experts of a layer: the routed ones fused in 3-D weights, the shared ones grouped in one MLP."""

from __future__ import annotations

from typing import Any

from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2MLP
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeExperts

__all__ = ["DeepseekExperts", "DeepseekSharedExperts"]


class DeepseekExperts(Qwen2MoeExperts):
    """Routed experts: ``gate_up_proj`` [experts, 2 x width, hidden], ``down_proj`` [experts, hidden, width].

    transformers' own convention, so that its experts implementations (eager, ``batched_mm``,
    ``grouped_mm``) compute them.
    """


class DeepseekSharedExperts(DeepseekV2MLP):
    """The experts that every token passes: side by side they are one gated MLP of their joint width."""

    def __init__(self, config: Any) -> None:
        width = config.n_shared_experts * config.moe_intermediate_size
        super().__init__(config, intermediate_size=width)
