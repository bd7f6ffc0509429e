"""PEFT's side of bottleneck adapters: which modules get one, and that they are never merged."""

from __future__ import annotations

from typing import Any, NoReturn

from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from checkpoints.bottleneck.config import BottleneckConfig
from checkpoints.bottleneck.layer import BottleneckLayer
from checkpoints.bottleneck.placement import find_targets
from checkpoints.errors import UnsupportedCheckpoint

__all__ = ["BottleneckModel"]


class BottleneckModel(BaseTuner):
    """A base with bottleneck adapters."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer

    def _prepare_adapter_config(self, peft_config: BottleneckConfig, model_config: Any) -> BottleneckConfig:
        return peft_config

    def _prepare_model(self, peft_config: BottleneckConfig, model: nn.Module) -> None:
        # PEFT matches names; which names those are is known from the model's structure.
        self._targets = find_targets(model, peft_config.placement)

    def _check_target_module_exists(self, peft_config: BottleneckConfig, key: str) -> bool:
        return key in self._targets

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        hidden_size = self.model.config.get_text_config().hidden_size
        layer = BottleneckLayer(target, adapter_name, peft_config, hidden_size)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: Any) -> None:
        # PEFT's own looks for a weight to place the adapter by; the layer has placed it already.
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> NoReturn:
        raise UnsupportedCheckpoint(
            "a bottleneck adapter has a non-linearity, so no weight of the base can hold it; use it unmerged"
        )
