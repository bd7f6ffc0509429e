"""Finding routers by their type: the model's class itself names it, for ``output_router_logits``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from transformers.utils.output_capturing import OutputRecorder

__all__ = ["Router", "find_routers"]

# PEFT keeps the original of a module that is trained as a whole, beside the copy that it trains.
_PEFT = "base_model.model."
_WRAPPED = re.compile(r"\.(original_module|modules_to_save\.[^.]+)$")


@dataclass(frozen=True)
class Router:
    """One layer's router."""

    name: str
    """Its path in the model, without what PEFT put around it."""
    modules: tuple[nn.Module, ...]
    """The modules that may act as it: one, or PEFT's original and copy."""
    experts: int
    """How many it chooses from."""

    @property
    def scores_by_sigmoid(self) -> bool:
        """Whether scores are sigmoids (DeepSeek-V3), which a bias corrects for the choice, or a softmax."""
        return hasattr(self.modules[0], "e_score_correction_bias")


def find_routers(model: nn.Module) -> list[Router]:
    """Return the routers of ``model``, from the first layer to the last; none for a dense model.

    A router is of the class whose first output the model's class declares as router logits, and has one row
    of weights per expert.
    """
    kinds = tuple(_router_classes(model))
    found: dict[str, list[nn.Module]] = {}
    experts: dict[str, int] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None) if isinstance(module, kinds) else None
        if isinstance(weight, nn.Parameter) and weight.ndim == 2:
            plain = _WRAPPED.sub("", name.removeprefix(_PEFT))
            found.setdefault(plain, []).append(module)
            experts[plain] = weight.shape[0]
    return [Router(name, tuple(modules), experts[name]) for name, modules in found.items()]


def _router_classes(model: nn.Module) -> set[type[nn.Module]]:
    classes = set()
    for module in model.modules():
        recorders = (getattr(module, "_can_record_outputs", None) or {}).get("router_logits", ())
        for recorder in recorders if isinstance(recorders, (list, tuple)) else (recorders,):
            if isinstance(recorder, OutputRecorder) and recorder.index == 0:
                classes.add(recorder.target_class)
    return classes
