"""Linear layers on a CPU that compute from one row to many at the speed of memory or of arithmetic.

oneDNN's product of a few rows reads weights at half the rate that memory gives them, and each operation
beside it is a call of its own. Here weights are laid out in panels (``tile.py``) and what stands before and
after a product belongs to it: a norm, a bias, the residual, the gate of a gated MLP. The layout is private
to the machine, so it is made when the model is loaded and never saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import nn

from serving.engine.torch.compiled.kernels import address, float_bits, kernel, scratch
from serving.engine.torch.compiled.layout import BLOCK_ROWS, PANEL, TILE_ROWS, whole_lines
from serving.engine.torch.side_by_side import side_by_side

__all__ = ["CompiledLinear", "can_compile"]


_PARTS = 4
"""Parts of a thread's panels, so that others can take what one that was interrupted has not begun."""


class CompiledLinear(nn.Module):
    """Several ``nn.Linear`` that read one input, for inference, their outputs side by side.

    Args:
        layers: layers for which ``can_compile``, with equal ``in_features``; all have a bias or none has.
        norm: scale ``[in_features]``, in the layers' precision, and epsilon of an RMS norm that the input
            goes through first.
        gated: whether they are two, and what comes out is ``silu(first) * second``.
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear],
        *,
        norm: tuple[torch.Tensor, float] | None = None,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = layers[0].in_features
        features = sum(layer.out_features for layer in layers)
        self.out_features = features // 2 if gated else features
        found = kernel("linear", layers[0].weight.dtype)
        assert found is not None
        self._kernel = found
        order = _gates_beside_inputs(self.out_features) if gated else torch.arange(features)
        self._weights = _laid_out(side_by_side([layer.weight for layer in layers]), order)
        self._bias = None
        if layers[0].bias is not None:
            bias = side_by_side([layer.bias for layer in layers])
            self._bias = _laid_out(bias.float().unsqueeze(1), order)
        # A copy: one tensor that is mapped from a file keeps all of the file in memory.
        self._norm = None if norm is None else norm[0].detach().clone()
        self._fixed = found.fixed(
            in_features=self.in_features,
            out_features=self.out_features,
            panels=self._weights.shape[0],
            gated=gated,
            weights=self._weights.data_ptr(),
            bias=address(self._bias),
            norm=address(self._norm),
            epsilon_bits=float_bits(0.0 if norm is None else norm[1]),
        )

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a compiled layer holds addresses of this process and cannot be copied or saved")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return ``[..., out_features]`` for ``[..., in_features]``."""
        return self._compute(inputs, None)

    def add(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return ``forward(inputs) + other``, rounded once; ``other`` has the output's shape."""
        return self._compute(inputs, other.contiguous())

    def _compute(self, inputs: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        self._check(inputs, self.in_features)
        rows = inputs.reshape(-1, self.in_features)
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        count = rows.shape[0]
        output = inputs.new_empty((*inputs.shape[:-1], self.out_features))
        if other is not None:
            self._check(other, self.out_features)
            if other.shape != output.shape:
                raise ValueError(f"{list(other.shape)} cannot be added to {list(output.shape)}")
        if not count:
            return output
        threads = torch.get_num_threads()
        normalized = 0
        if self._norm is not None:
            normalized = min(count, BLOCK_ROWS) * self.in_features * self._norm.itemsize // 4
        floats = whole_lines(TILE_ROWS * PANEL + normalized)
        self._kernel.run(
            threads,
            self._fixed,
            rows=count,
            grain=-(-self._weights.shape[0] // (threads * _PARTS)),
            inputs=rows.data_ptr(),
            input_row=rows.stride(0),
            other=address(other),
            output=output.data_ptr(),
            scratch=scratch(threads * floats),
            scratch_floats=floats,
        )
        return output

    def _check(self, tensor: torch.Tensor, features: int) -> None:
        """Raise ValueError for what the kernel, which checks nothing, would read or write beyond its end."""
        weights = self._weights
        if tensor.shape[-1] != features or tensor.dtype != weights.dtype or tensor.device != weights.device:
            raise ValueError(
                f"{list(tensor.shape)} in {tensor.dtype} on {tensor.device}; computed here are {features} "
                f"features in {weights.dtype} on {weights.device}"
            )


def can_compile(layer: nn.Module) -> bool:
    """Whether ``layer`` is a plain Linear that is computed here, and faster than by oneDNN."""
    if type(layer) is not nn.Linear or layer.weight.device.type != "cpu" or hasattr(layer, "_hf_hook"):
        return False
    if layer.weight.dtype == torch.bfloat16 and layer.in_features % 2:
        return False
    return kernel("linear", layer.weight.dtype) is not None


def _gates_beside_inputs(features: int) -> torch.Tensor:
    """Return the order of ``2 * features`` outputs in which each panel has gates and then their inputs.

    Places that are no output's hold -1.
    """
    half = PANEL // 2
    gates = torch.full((-(-features // half) * half,), -1)
    gates[:features] = torch.arange(features)
    gates = gates.view(-1, half)
    return torch.stack((gates, torch.where(gates < 0, -1, gates + features)), dim=1).flatten()


def _laid_out(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Return the panels, ``[panels, steps, PANEL]``, with bfloat16 two input features in each place.

    Args:
        values: ``[outputs, in_features]``.
        order: outputs as they stand in the panels; -1 and what is missing at the end is filled with zeros.
    """
    together = 2 if values.dtype == torch.bfloat16 else 1
    panels = order.split(PANEL)
    # One by one, so that little stands twice.
    laid_out = values.new_zeros((len(panels), values.shape[1] // together, PANEL, together))
    for place, panel in zip(laid_out, panels, strict=True):
        there = panel >= 0
        rows = values[panel[there]].reshape(-1, *place.shape[::2])
        place[:, : len(panel)][:, there] = rows.transpose(0, 1)
    return laid_out
