"""Makes the method known to PEFT."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from checkpoints.bottleneck.config import BottleneckConfig
from checkpoints.bottleneck.model import BottleneckModel
from checkpoints.bottleneck.peft_type import NAME, bottleneck_type

__all__ = ["register"]


def register() -> None:
    """Register the method, once."""
    if bottleneck_type() not in PEFT_TYPE_TO_TUNER_MAPPING:
        register_peft_method(name=NAME.lower(), config_cls=BottleneckConfig, model_cls=BottleneckModel)
