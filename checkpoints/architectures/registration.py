"""Makes our architectures known to transformers' auto classes, when and only when they are asked for.

In two steps, because transformers' own modules import each other in a circle: the config class is put on
the list by name as soon as there is a list, and imported by the first ``config.json`` that names it; the
model classes are registered by the first config that is made.
"""

from __future__ import annotations

from functools import cache

from checkpoints.after_import import after_import

__all__ = ["register_architectures", "register_deepseek_models"]


def register_architectures() -> None:
    """Let ``AutoConfig`` and the auto models of transformers find our architectures; imports nothing."""
    after_import("transformers.models.auto.configuration_auto", _list_configs)


def _list_configs() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    from checkpoints.architectures import deepseek

    # What AutoConfig.register does, by name: the class itself cannot be imported yet.
    CONFIG_MAPPING_NAMES["deepseek"] = "DeepseekConfig"
    CONFIG_MAPPING._modules["deepseek"] = deepseek


@cache
def register_deepseek_models() -> None:
    """Register the model classes, and how the published names of the experts become fused weights."""
    from transformers.conversion_mapping import (
        get_checkpoint_conversion_mapping,
        register_checkpoint_conversion_mapping,
    )
    from transformers.models.auto.modeling_auto import AutoModel, AutoModelForCausalLM

    from checkpoints.architectures.deepseek.configuration import DeepseekConfig
    from checkpoints.architectures.deepseek.modeling import DeepseekForCausalLM, DeepseekModel

    # mlp.experts.N.{gate,up,down}_proj.weight, as in Qwen2-MoE.
    conversion = get_checkpoint_conversion_mapping("qwen2_moe")
    register_checkpoint_conversion_mapping("deepseek", conversion, overwrite=True)
    AutoModel.register(DeepseekConfig, DeepseekModel, exist_ok=True)
    AutoModelForCausalLM.register(DeepseekConfig, DeepseekForCausalLM, exist_ok=True)
