"""How many parameters a model has and how many bytes they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from checkpoints.nf4_experts import NF4Experts

__all__ = ["is_packed", "logical_parameters", "parameter_count", "storage_bytes", "stored_bytes"]


def logical_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter, int]]:
    """Yield (name, parameter, logical element count); a tied weight once.

    A 4-bit weight is stored as packed bytes; its logical count is that of the weights it stands for. Scales
    of packed experts are parameters, too, and stand for none.
    """
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        module = modules[name.rpartition(".")[0]]
        if is_packed(parameter):
            yield name, parameter, int(module.in_features) * int(module.out_features)
            continue
        count = None
        if isinstance(module, NF4Experts):
            count = module.logical_count(name.rpartition(".")[2])
        yield name, parameter, parameter.numel() if count is None else count


def is_packed(parameter: Any) -> bool:
    """Whether a parameter holds 4-bit blocks of a bitsandbytes layer."""
    return type(parameter).__name__ == "Params4bit"


def parameter_count(model: torch.nn.Module) -> int:
    """Return the logical parameters of a model: tied weights once, 4-bit weights by their real shape."""
    return sum(count for _, _, count in logical_parameters(model))


def storage_bytes(model: torch.nn.Module) -> int:
    """Return the bytes the parameters take, with the scales of 4-bit weights."""
    return sum(stored_bytes(parameter) for _, parameter, _ in logical_parameters(model))


def stored_bytes(parameter: torch.nn.Parameter) -> int:
    """Return the bytes of one parameter; of a bitsandbytes layer's, with scales and lookup tables."""
    total = int(parameter.numel() * parameter.element_size())
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        total += sum(
            value.numel() * value.element_size()
            for value in state.as_dict(packed=True).values()
            if isinstance(value, torch.Tensor)
        )
    return total
