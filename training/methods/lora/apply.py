"""Put LoRA on a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.pytorch_utils import Conv1D

from checkpoints.errors import ConfigError
from checkpoints.lora_targets import targets_as_named
from checkpoints.nf4_experts import fused_experts, fused_projections, packed_experts
from checkpoints.nf4_routing import routing_layers
from checkpoints.routers import find_routers
from training.methods.lora.config import ALL_LINEAR, LoraSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["apply", "expert_parameters", "linear_names"]


def apply(model: PreTrainedModel, settings: LoraSettings, routers: Sequence[str] = ()) -> PeftModel:
    """Freeze ``model`` and add trainable LoRA weights, kept in fp32 whatever the base's dtype.

    Args:
        model: the base.
        settings: of the method.
        routers: names of routers that are trained, and saved, whole; in fp32, too.

    Raises:
        ConfigError: a name in ``target_modules`` matches no layer, and the message lists the linear layers;
            or ``experts`` is asked of a model without routed experts that LoRA can adapt.
    """
    targets = _resolve_targets(model, settings.target_modules)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        # PEFT annotates an int, but only ever divides by the rank: 0.5 is as good a scale as 1.
        lora_alpha=cast(int, settings.alpha),
        lora_dropout=settings.dropout,
        target_modules=targets,
        target_parameters=expert_parameters(model) if settings.experts else None,
        modules_to_save=list(routers) or None,
        bias="none",
        use_rslora=settings.rslora,  # https://arxiv.org/abs/2312.03732
        use_dora=settings.dora,  # https://arxiv.org/abs/2402.09353
    )
    with warnings.catch_warnings(), targets_as_named():
        # PEFT asks by the name that transformers 5 has deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = get_peft_model(model, lora, autocast_adapter_dtype=True)
    assert isinstance(adapted, PeftModel)
    _widen_routers(adapted)
    return adapted


def expert_parameters(model: nn.Module) -> list[str]:
    """Return the full names of the routed experts' fused weights, packed or not.

    Raises:
        ConfigError: the model has none that LoRA can adapt.
    """
    found = [
        f"{name}.{projection.name}"
        for name, module in fused_experts(model).items()
        for projection in fused_projections(module) or ()
    ]
    found += [
        f"{name}.{projection}"
        for name, experts in packed_experts(model).items()
        for projection in experts.projections
    ]
    if not found:
        raise ConfigError(
            "lora.experts is true, but this model has no fused experts: it is dense, or its experts are not "
            "of the form that transformers 5 gives them; leave lora.experts out"
        )
    return found


def linear_names(model: nn.Module) -> list[str]:
    """Return the last name parts of the model's linear layers (``q_proj``, ``down_proj``, ...)."""
    return sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)})


def _resolve_targets(model: PreTrainedModel, names: str | list[str]) -> str | list[str]:
    """Return the targets for PEFT: for a mixture of experts, full names of linear layers."""
    wanted = [names] if isinstance(names, str) else list(names)
    mixture = bool(fused_experts(model) or packed_experts(model))
    layers = [name for name, module in model.named_modules() if _is_linear(module)]
    if wanted == [ALL_LINEAR]:
        if not mixture:
            return ALL_LINEAR
        # The gate of a shared expert, one output wide, decides on experts like a router.
        gates = set(routing_layers(model))
        head = model.get_output_embeddings()
        return [name for name in layers if name not in gates and model.get_submodule(name) is not head]
    found = {target: [name for name in layers if f".{name}".endswith(f".{target}")] for target in wanted}
    for target, matching in found.items():
        if not matching:
            raise ConfigError(
                f"lora.target_modules: {target!r} matches no linear layer of this model; "
                f"it has: {', '.join(linear_names(model))} (or say {ALL_LINEAR})"
            )
    return sorted({name for matching in found.values() for name in matching}) if mixture else wanted


def _is_linear(module: nn.Module) -> bool:
    # bitsandbytes' 4-bit layers are nn.Linear; GPT-2's layers are transformers' Conv1D.
    return isinstance(module, (torch.nn.Linear, Conv1D))


def _widen_routers(adapted: PeftModel) -> None:
    """Train routers in fp32: in bf16 most steps of a usual learning rate are rounded away."""
    for router in find_routers(adapted):
        for module in router.modules:
            if any(parameter.requires_grad for parameter in module.parameters()):
                module.float()
                module.register_forward_pre_hook(_to_fp32)


def _to_fp32(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return inputs[0].float(), *inputs[1:]
