"""Make all weights of a model trainable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.methods.full.config import FullSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["apply"]


def apply(model: PreTrainedModel, settings: FullSettings) -> PreTrainedModel:
    """Return ``model`` itself; it was loaded in ``settings.weights`` (see ``training.precision``)."""
    model.requires_grad_(True)
    return model.train()
