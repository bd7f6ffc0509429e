"""The ``config.json`` of a DeepSeek-MoE checkpoint."""

# No `from __future__ import annotations`: transformers checks the fields by their types.

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.utils import is_torch_available

from checkpoints.architectures.registration import register_deepseek_models

__all__ = ["DeepseekConfig"]

# What DeepSeek-V2 and V3 route by, and the values at which it changes nothing.
_LATER: dict[str, tuple[Any, ...]] = {
    "n_group": (None, 0, 1),
    "routed_scaling_factor": (None, 1, 1.0),
    "topk_method": (None, "greedy"),
}


@strict
class DeepseekConfig(LlamaConfig):
    """What is not Llama's, with the defaults of the published configuration class.

    Without ``n_routed_experts`` every layer is dense. ``num_experts`` and ``router_aux_loss_coef``, what
    transformers calls them elsewhere, are other names for ``n_routed_experts`` and ``aux_loss_alpha``.

    Raises:
        ValueError: the experts do not fit each other, the gate is not a softmax, or a field of a later
            DeepSeek asks for what this model does not compute.
    """

    model_type: ClassVar[str] = "deepseek"
    attribute_map: ClassVar[dict[str, str]] = {
        "num_experts": "n_routed_experts",
        "router_aux_loss_coef": "aux_loss_alpha",
    }
    # Llama's plans do not know experts, and none of ours is tested.
    base_model_tp_plan: ClassVar[dict[str, Any] | None] = None
    base_model_pp_plan: ClassVar[dict[str, Any] | None] = None

    vocab_size: int = 102400
    bos_token_id: int | None = 100000
    eos_token_id: int | list[int] | None = 100001
    moe_intermediate_size: int = 1407
    n_routed_experts: int | None = None
    n_shared_experts: int | None = None
    num_experts_per_tok: int | None = None
    first_k_dense_replace: int = 0
    moe_layer_freq: int = 1
    norm_topk_prob: bool = False
    scoring_func: str = "softmax"
    aux_loss_alpha: int | float = 0.001
    seq_aux: bool = True
    output_router_logits: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        # Names the remote code that these classes stand in for; a copy of the checkpoint does not have it.
        kwargs.pop("auto_map", None)
        for name, plain in _LATER.items():
            if kwargs.get(name, plain[0]) not in plain:
                raise ValueError(
                    f"{name} is {kwargs[name]!r}, which DeepSeek-MoE does not have: it would be ignored; "
                    f"expected {plain[-1]!r} or none (model_type deepseek_v2 or deepseek_v3 knows it)"
                )
        super().__post_init__(**kwargs)
        self._check_experts()
        # Without torch there are no models: a server's front end reads the config for the tokenizer alone.
        if is_torch_available():
            register_deepseek_models()

    def is_mixture(self, layer: int) -> bool:
        """Whether the feed-forward part of this layer is a mixture of experts."""
        if self.n_routed_experts is None or layer < self.first_k_dense_replace:
            return False
        return layer % self.moe_layer_freq == 0

    def _check_experts(self) -> None:
        if self.moe_layer_freq < 1:
            raise ValueError(f"moe_layer_freq is {self.moe_layer_freq}, expected 1 or more")
        experts, chosen = self.n_routed_experts, self.num_experts_per_tok
        if experts is None:
            return
        if chosen is None or not 1 <= chosen <= experts:
            raise ValueError(f"num_experts_per_tok is {chosen}, expected 1 to n_routed_experts ({experts})")
        if self.scoring_func != "softmax":
            raise ValueError(f"scoring_func is {self.scoring_func!r}, expected softmax")
