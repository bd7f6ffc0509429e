"""Weights that are spread over ranks, brought together."""

from __future__ import annotations

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from training.ranks import is_first

__all__ = ["gather_weights"]


def gather_weights(model: nn.Module, *, frozen: bool) -> None:
    """Put the weights, whole, on the CPU of the first rank; every rank must call.

    In place, one weight after the other, so that no more than one is there whole on the other ranks. A model
    that is not sharded is left as it is; one that is can be saved afterwards, and not trained further.

    Args:
        model: sharded by FSDP2 or not.
        frozen: whether those that were not trained are wanted, too; else they stay where they are.
    """
    whole: dict[int, nn.Parameter] = {}  # tied weights are one parameter in several modules
    for module in model.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            if not (isinstance(parameter, DTensor) and (frozen or parameter.requires_grad)):
                continue
            if id(parameter) not in whole:
                value = parameter.detach().full_tensor()
                whole[id(parameter)] = nn.Parameter(value.cpu()) if is_first() else parameter
            module._parameters[name] = whole[id(parameter)]
        if isinstance(module, FSDPModule) and is_first():
            # FSDP2 made a class of (FSDPModule, the module's own); saving goes by the class's name.
            module.__class__ = type(module).__mro__[2]
