"""Bottleneck adapters (Houlsby et al. 2019, https://arxiv.org/abs/1902.00751) as a method of PEFT.

After ``import checkpoints.bottleneck``, ``PeftModel.from_pretrained`` loads them like any adapter.

``config``     what is in ``adapter_config.json``
``placement``  which modules of a model they go behind
``layer``      the adapter around such a module
``model``      PEFT's side: puts the layers in, and says why they cannot be merged
"""

from __future__ import annotations

from checkpoints.bottleneck.config import BottleneckConfig
from checkpoints.bottleneck.layer import BottleneckLayer
from checkpoints.bottleneck.model import BottleneckModel
from checkpoints.bottleneck.registration import register

__all__ = ["BottleneckConfig", "BottleneckLayer", "BottleneckModel"]

register()
