"""Weights that are spread over ranks, brought together."""

from __future__ import annotations

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from training.ranks import is_first
from training.zero import is_split, whole

__all__ = ["gather_weights"]


def gather_weights(model: nn.Module, *, frozen: bool) -> None:
    """Put the weights, whole, on the CPU of the first rank; every rank must call.

    In place, one weight after the other, so that no more than one is there whole on the other ranks. A model
    that is not sharded is left as it is; one that is can be saved afterwards, and not trained further.

    Args:
        model: sharded by FSDP2 or ZeRO-3, or not.
        frozen: whether those that were not trained are wanted, too; else they stay where they are.
    """
    found: dict[int, nn.Parameter] = {}  # tied weights are one parameter in several modules
    for module in model.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            sharded = isinstance(parameter, DTensor) or is_split(parameter)
            if not (sharded and (frozen or parameter.requires_grad)):
                continue
            if id(parameter) not in found:
                found[id(parameter)] = _gathered(parameter)
            module._parameters[name] = found[id(parameter)]
        if isinstance(module, FSDPModule) and is_first():
            # FSDP2 made a class of (FSDPModule, the module's own); saving goes by the class's name.
            module.__class__ = type(module).__mro__[2]


def _gathered(parameter: nn.Parameter) -> nn.Parameter:
    if isinstance(parameter, DTensor):
        value = parameter.detach().full_tensor()
        return nn.Parameter(value.cpu()) if is_first() else parameter
    with whole(parameter) as value:
        return nn.Parameter(value.to("cpu", copy=True)) if is_first() else parameter
