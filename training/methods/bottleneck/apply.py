"""Put bottleneck adapters on a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from peft import PeftModel, get_peft_model

from checkpoints.bottleneck import BottleneckConfig
from training.methods.bottleneck.config import BottleneckSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["apply"]


def apply(model: PreTrainedModel, settings: BottleneckSettings, routers: Sequence[str] = ()) -> PeftModel:
    """Freeze ``model`` and add trainable adapters, kept in fp32 whatever the base's dtype.

    Raises:
        UnsupportedCheckpoint: the decoder layers have no attention or no MLP to put them behind.
    """
    assert not routers, (
        "TrainConfig refuses them: these adapters are served beside a base that stays as it is"
    )
    config = BottleneckConfig(
        task_type="CAUSAL_LM",
        size=settings.size,
        activation=settings.activation,
        dropout=settings.dropout,
        placement=settings.placement,
    )
    with warnings.catch_warnings():
        # PEFT asks by the name that transformers 5 has deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    assert isinstance(adapted, PeftModel)
    return adapted
