"""Linear layers on a CPU that compute from one row to many at the speed of memory or of arithmetic.

oneDNN's product of a few rows reads weights at half the rate that memory gives them, and each operation
beside it is a call of its own. Here weights are laid out in panels (``panels.py``), each kind of weights by a
module of its own, and what stands before and after a product belongs to it: a norm, a bias, the residual, the
gate of a gated MLP. The layout is private to the machine, so it is made when the model is loaded and never
saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, cast

import torch
from torch import nn

from serving.engine.torch.compiled.kernels import Call, address, float_bits, kernel, scratch
from serving.engine.torch.compiled.layout import BLOCK_ROWS, PANEL, whole_lines
from serving.engine.torch.compiled.linear import float_panels, int8_panels, nf4_panels
from serving.engine.torch.compiled.linear.panels import by_panel, gates_beside_inputs
from serving.engine.torch.side_by_side import side_by_side

__all__ = ["CompiledLinear", "compiled_in"]

_KINDS: tuple[Any, ...] = (float_panels, nf4_panels, int8_panels)
"""Modules that lay out a kind of weights."""

_PARTS = 4
"""Parts of a thread's panels, so that others can take what one that was interrupted has not begun."""


class CompiledLinear(nn.Module):
    """Several linear layers that read one input, for inference, their outputs side by side.

    Args:
        layers: of one class, ``compiled_in`` one precision, with equal ``in_features``; all have a bias or
            none has.
        norm: scale ``[in_features]``, in the precision they compute in, and epsilon of an RMS norm that the
            input goes through first.
        gated: whether they are two, and what comes out is ``silu(first) * second``.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        *,
        norm: tuple[torch.Tensor, float] | None = None,
        gated: bool = False,
    ) -> None:
        super().__init__()
        parts = [cast(nn.Linear, layer) for layer in layers]
        self.in_features = parts[0].in_features
        features = sum(part.out_features for part in parts)
        self.out_features = features // 2 if gated else features
        order = gates_beside_inputs(self.out_features) if gated else torch.arange(features)
        kind = next(kind for kind in _KINDS if kind.compiled_in(parts[0]) is not None)
        self._panels = kind.lay_out(parts, order)
        found = kernel(self._panels.kernel, self._panels.dtype)
        assert found is not None
        self._kernel = found
        self._device = self._panels.device
        self._bias = None
        if parts[0].bias is not None:
            self._bias = by_panel(side_by_side([part.bias for part in parts]).unsqueeze(1), order)
        # A copy: one tensor that is mapped from a file keeps all of the file in memory.
        self._norm = None if norm is None else norm[0].detach().clone()
        self._block_floats = PANEL
        """Of scratch for each row of a block: its sums, and itself where it is normalized."""
        if self._norm is not None:
            self._block_floats += self.in_features * self._norm.itemsize // 4
        self._fixed = found.fixed(
            in_features=self.in_features,
            out_features=self.out_features,
            panels=self._panels.count,
            gated=gated,
            bias=address(self._bias),
            norm=address(self._norm),
            epsilon_bits=float_bits(0.0 if norm is None else norm[1]),
            **{name: tensor.data_ptr() for name, tensor in self._panels.tensors.items()},
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of inputs and outputs."""
        return self._panels.dtype

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a compiled layer holds addresses of this process and cannot be copied or saved")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return ``[..., out_features]`` for ``[..., in_features]``."""
        return self._compute(inputs, None)

    def add(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return ``forward(inputs) + other``, rounded once; ``other`` has the output's shape."""
        return self._compute(inputs, other.contiguous())

    def call(
        self,
        inputs: torch.Tensor,
        output: torch.Tensor,
        other: torch.Tensor | None,
        threads: int,
    ) -> Call:
        """Return the call that writes ``output``; it still lacks its scratch.

        Args:
            inputs: contiguous ``[..., in_features]``, or ``[rows, in_features]`` with rows that lie apart.
            output: contiguous ``[..., out_features]``.
            other: what is added, in the same form; it may be ``output``.
            threads: that will compute.
        """
        size = self.in_features
        if inputs.is_contiguous():
            count, stride = inputs.numel() // size, size
        else:
            count, stride = inputs.shape[0], inputs.stride(0)
        block = count if count < BLOCK_ROWS else BLOCK_ROWS
        panels = self._panels
        room = whole_lines(block * self._block_floats)
        call = self._kernel.call((inputs, output, other), self._fixed)
        told = call.told
        told.rows = count
        told.grain = -(-panels.count // (threads * _PARTS))
        told.inputs = inputs.data_ptr()
        told.input_row = stride
        told.other = address(other)
        told.output = output.data_ptr()
        told.scratch_floats = whole_lines(room + panels.floats + block * panels.row_floats)
        told.room = room
        return call

    def _compute(self, inputs: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        self._check(inputs, self.in_features)
        output = inputs.new_empty((*inputs.shape[:-1], self.out_features))
        if other is not None:
            self._check(other, self.out_features)
            if other.shape != output.shape:
                raise ValueError(f"{list(other.shape)} cannot be added to {list(output.shape)}")
        if not inputs.is_contiguous():
            inputs = inputs.reshape(-1, self.in_features)
            if inputs.stride(1) != 1:
                inputs = inputs.contiguous()
        if output.numel():
            threads = torch.get_num_threads()
            call = self.call(inputs, output, other, threads)
            call.told.scratch = scratch(threads * call.told.scratch_floats)
            call.run(threads)
        return output

    def _check(self, tensor: torch.Tensor, features: int) -> None:
        """Raise ValueError for what the kernel, which checks nothing, would read or write beyond its end."""
        dtype, device = self._panels.dtype, self._device
        if tensor.shape[-1] != features or tensor.dtype != dtype or tensor.device != device:
            raise ValueError(
                f"{list(tensor.shape)} in {tensor.dtype} on {tensor.device}; computed here are {features} "
                f"features in {dtype} on {device}"
            )


def compiled_in(layer: nn.Module) -> torch.dtype | None:
    """Return the precision that ``layer`` is computed in here, faster than by other libraries; else None."""
    return next((dtype for kind in _KINDS if (dtype := kind.compiled_in(layer)) is not None), None)
