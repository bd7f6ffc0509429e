"""Turning off the balance loss that a model's own code adds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["without_own_balance_loss"]

# transformers' models add the loss where the first is set; our DeepSeek-MoE where the second is not 0.
_SETTINGS: dict[str, Any] = {"output_router_logits": False, "router_aux_loss_coef": 0.0}


@contextmanager
def without_own_balance_loss(config: Any) -> Iterator[None]:
    """Let forward passes inside the block return the token loss alone; the config is as before afterwards.

    Args:
        config: of the model, a ``PretrainedConfig``.
    """
    before = {name: getattr(config, name) for name in _SETTINGS if hasattr(config, name)}
    for name in before:
        setattr(config, name, _SETTINGS[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
