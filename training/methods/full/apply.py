"""Make all weights of a model trainable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from checkpoints.routers import find_routers
from training.methods.full.config import FullSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["apply"]


def apply(model: PreTrainedModel, settings: FullSettings, routers: Sequence[str] = ()) -> PreTrainedModel:
    """Return ``model`` itself; it was loaded in ``settings.weights`` (see ``training.precision``)."""
    model.requires_grad_(True)
    for router in find_routers(model):
        if router.name not in routers:
            for module in router.modules:
                module.requires_grad_(False)
    return model.train()
