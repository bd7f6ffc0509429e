"""The layers that decide which experts a token goes to; NF4 leaves them as they are.

They are a hair of a model's size, and a choice that falls the other way costs more than a rounded weight.
They are known by where they stand, beside the experts, and by their size.
"""

from __future__ import annotations

from torch import nn

from checkpoints.nf4_experts import NF4Experts, fused_projections

__all__ = ["routing_layers", "routing_reasons"]


def routing_layers(model: nn.Module) -> list[str]:
    """Return the Linear layers beside fused experts: router, and the gate of a shared expert."""
    found = []
    for name, block, experts in _blocks(model):
        for child_name, child in block.named_children():
            if type(child) is nn.Linear and child.out_features in (1, experts):
                found.append(f"{name}.{child_name}")
    return found


def routing_reasons(model: nn.Module) -> dict[nn.Module, str]:
    """Return why the modules that route tokens stay as they are."""
    reasons = {}
    for _, block, experts in _blocks(model):
        for child in block.children():
            weight = getattr(child, "weight", None)
            if weight is None or weight.ndim != 2:
                continue
            if len(weight) == experts:
                reasons[child] = "router"
            elif len(weight) == 1:
                reasons[child] = "gate of the shared expert"
    return reasons


def _blocks(model: nn.Module) -> list[tuple[str, nn.Module, int]]:
    """Return name, module and number of experts of each mixture, before or after it is packed."""
    blocks = []
    for name, block in model.named_modules():
        for child in block.children():
            if isinstance(child, NF4Experts):
                blocks.append((name, block, child.num_experts))
            elif (projections := fused_projections(child)) is not None:
                blocks.append((name, block, len(getattr(child, projections[0].name))))
    return blocks
