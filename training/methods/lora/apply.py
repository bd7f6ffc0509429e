"""Put LoRA on a model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, cast

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from checkpoints.errors import ConfigError
from training.methods.lora.config import ALL_LINEAR, LoraSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["apply", "linear_names"]


def apply(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Freeze ``model`` and add trainable LoRA weights, kept in fp32 whatever the base's dtype.

    Raises:
        ConfigError: a name in ``target_modules`` matches no layer; the message lists the linear layers.
    """
    targets = _resolve_targets(model, settings.target_modules)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        # PEFT annotates an int, but only ever divides by the rank: 0.5 is as good a scale as 1.
        lora_alpha=cast(int, settings.alpha),
        lora_dropout=settings.dropout,
        target_modules=targets,
        bias="none",
        use_rslora=settings.rslora,  # https://arxiv.org/abs/2312.03732
        use_dora=settings.dora,  # https://arxiv.org/abs/2402.09353
    )
    with warnings.catch_warnings():
        # PEFT asks by the name that transformers 5 has deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = get_peft_model(model, lora, autocast_adapter_dtype=True)
    assert isinstance(adapted, PeftModel)
    return adapted


def linear_names(model: nn.Module) -> list[str]:
    """Return the last name parts of the model's linear layers (``q_proj``, ``down_proj``, ...)."""
    return sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)})


def _resolve_targets(model: PreTrainedModel, names: str | list[str]) -> str | list[str]:
    wanted = [names] if isinstance(names, str) else list(names)
    if wanted == [ALL_LINEAR]:
        return ALL_LINEAR
    layers = [name for name, module in model.named_modules() if _is_linear(module)]
    for target in wanted:
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            raise ConfigError(
                f"lora.target_modules: {target!r} matches no linear layer of this model; "
                f"it has: {', '.join(linear_names(model))} (or say {ALL_LINEAR})"
            )
    return wanted


def _is_linear(module: nn.Module) -> bool:
    # bitsandbytes' 4-bit layers are nn.Linear; GPT-2's layers are transformers' Conv1D.
    return isinstance(module, (nn.Linear, Conv1D))
