"""The adapter around one module: attention or MLP of a decoder layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional

from checkpoints.bottleneck.config import BottleneckConfig

__all__ = ["ACTIVATIONS", "BottleneckLayer", "Projection"]

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


class Projection(nn.Linear):
    """``down`` or ``up``: a class of its own, so that what replaces Linear layers leaves it alone."""


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module of the base with adapters behind it: ``h + up(activation(down(dropout(h))))``.

    ``up`` starts at zero, so that training starts at the base. The residual of the decoder layer is added
    afterwards, as in the paper.

    Args:
        base_layer: the module; it returns the hidden state, or a tuple that begins with it.
        adapter_name: of the first adapter.
        config: of the first adapter.
        hidden_size: of the hidden state.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_dropout", "bottleneck_activation")

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig, hidden_size: int
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.hidden_size = hidden_size
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_dropout = nn.ModuleDict()
        self.bottleneck_activation: dict[str, str] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter."""
        down, up = Projection(self.hidden_size, config.size), Projection(config.size, self.hidden_size)
        nn.init.zeros_(down.bias)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        self.bottleneck_dropout[adapter_name] = nn.Dropout(config.dropout)
        self.bottleneck_activation[adapter_name] = config.activation
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the base's module does, its hidden state adapted."""
        output = self.base_layer(*args, **kwargs)
        if self.disable_adapters:
            return output
        hidden = output[0] if isinstance(output, tuple) else output
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                hidden = hidden + self._change(name, hidden)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    def _change(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        down, up = self.bottleneck_down[name], self.bottleneck_up[name]
        inputs = self.bottleneck_dropout[name](self._cast_input_dtype(hidden, down.weight.dtype))
        change: torch.Tensor = up(ACTIVATIONS[self.bottleneck_activation[name]](down(inputs)))
        return change.to(hidden.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:
        """Refuse: no weight of the base could hold the non-linearity.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a bottleneck adapter has a non-linearity, so it cannot be merged")

    def unmerge(self) -> None:
        """Nothing to do: nothing is ever merged."""

    def _get_base_layer_device_and_dtype(
        self, base_layer: nn.Module
    ) -> tuple[torch.device | None, torch.dtype | None]:
        """Return where the adapter belongs; its dtype is left to PEFT, which trains in fp32."""
        parameter = next(base_layer.parameters(), None)
        return (None if parameter is None else parameter.device), None
