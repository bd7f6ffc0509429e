"""Puts other layers into a model, and lets go of the files it was loaded from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["copy_parameters", "replace_layers"]


def replace_layers(
    model: nn.Module, accepts: Callable[[nn.Module], bool], make: Callable[[Any], nn.Module]
) -> int:
    """Replace each layer inside ``model`` that ``accepts`` says yes to by what ``make`` returns for it.

    Layers are made one by one, and each lets go of the one it replaces: no more than one's weights exist
    twice.

    Returns:
        How many were replaced.
    """
    # Where they are, not what they are: a list of the layers would keep them.
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if accepts(child)
    ]
    for parent, name in places:
        setattr(parent, name, make(getattr(parent, name)))
    return len(places)


def copy_parameters(model: nn.Module) -> None:
    """Let go of the checkpoint's files: one parameter mapped from a file keeps all of it in memory."""
    for value in model.parameters():
        value.data = value.data.clone()
