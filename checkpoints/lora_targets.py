"""Which layers of a mixture of experts a LoRA adapter is on, said so that PEFT takes them for no others.

transformers 5 holds routed experts as fused parameters, and routers as modules of their own. For adapters
from before, PEFT 0.21 rewrites the targets of the model types in its table (Mixtral, Qwen3-MoE, DeepSeek-V2
and V3, ...): a name that ends in ``gate``, ``gate_proj``, ``up_proj`` or ``down_proj`` becomes a parameter of
every router or of all routed experts, at twice the rank. The layers of a shared expert have just such names.

So targets that are full names of the model's modules are left as they are (``targets_as_named``), and an
adapter is saved with targets that even plain PEFT does not rewrite (``save_targets``): of a layer with such a
name, its weight, in ``target_parameters``. PEFT keeps the same two matrices for it under the same keys.

Experts that are packed to NF4 have no such parameters; ``targets_as_named`` adapts them, too (``nf4_lora``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

__all__ = ["save_targets", "targets_as_named"]

_WEIGHT = ".weight"
_ADAPTER = "default"
"""PEFT's name for an adapter; here no model has a second one."""


@contextmanager
def targets_as_named() -> Iterator[None]:
    """Inside the block PEFT puts LoRA on the layers that a config names in full, and rewrites none of them.

    Configs that name layers in another way are converted as before.
    """
    from peft.utils import transformers_weight_conversion as conversion

    convert = conversion.convert_peft_config_for_transformers

    def keep_named(peft_config: Any, model: nn.Module, conversions: Any) -> None:
        if not _take_named(peft_config, model):
            convert(peft_config, model=model, conversions=conversions)

    conversion.convert_peft_config_for_transformers = keep_named
    try:
        yield
    finally:
        conversion.convert_peft_config_for_transformers = convert


def save_targets(config: Any, model: Any) -> None:
    """Say in ``config``, which is about to be saved, where the LoRA layers of ``model`` are; see above.

    Args:
        config: the ``LoraConfig`` that ``model`` was made with.
        model: a PEFT model. It is no longer of use to put more adapters on.
    """
    from peft.tuners.lora import LoraLayer, ParamWrapper

    base = model.get_base_model()
    adapted = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    experts = {
        f"{name.replace('.base_layer', '')}.{module.parameter_name}"
        for name, module in adapted.items()
        if isinstance(module, ParamWrapper)
    }
    layers = {name for name, module in adapted.items() if not isinstance(module, ParamWrapper)}
    rewritten = {name for name in layers if _is_rewritten(config, base, name)}
    if experts:
        config.target_parameters = sorted(experts)
    if not rewritten:
        return
    config.target_modules = sorted(layers - rewritten)
    config.target_parameters = sorted([*experts, *(f"{name}{_WEIGHT}" for name in rewritten)])
    # PEFT refuses dropout beside target_parameters; without training it does nothing anyway.
    config.lora_dropout = 0.0


def _take_named(config: Any, model: nn.Module) -> bool:
    """Undo ``save_targets`` in ``config``; return whether all its targets are full names of modules.

    If so, packed experts among them are adapted already, and no longer in ``config``.
    """
    from checkpoints.nf4_lora import adapt_packed_experts

    if config.peft_type != "LORA" or isinstance(config.target_modules, str):
        return False
    wanted, parameters = set(config.target_modules or ()), set(config.target_parameters or ())
    modules = dict(model.named_modules())
    if not (wanted or parameters) or not modules.keys() >= wanted:
        return False
    layers = {
        name
        for name in (parameter.removesuffix(_WEIGHT) for parameter in parameters)
        if isinstance(modules.get(name), (nn.Linear, Conv1D))
    }
    parameters -= {f"{name}{_WEIGHT}" for name in layers}
    parameters -= adapt_packed_experts(model, _ADAPTER, config, parameters)
    config.target_modules, config.target_parameters = wanted | layers, sorted(parameters) or None
    return True


def _is_rewritten(config: Any, base: nn.Module, name: str) -> bool:
    """Ask PEFT itself whether it would take ``name`` for something else in plain ``from_pretrained``."""
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    trial = copy.copy(config)
    trial.target_modules, trial.target_parameters = {name}, None
    trial.rank_pattern, trial.alpha_pattern = {}, {}
    try:
        convert_peft_config_for_transformers(trial, model=base, conversions=None)
    except ValueError:  # half of a fused weight
        return True
    return name not in trial.target_modules
