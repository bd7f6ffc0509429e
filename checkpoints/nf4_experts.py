"""The experts of a mixture in 4-bit NF4, dequantized one by one where a token goes.

transformers 5 holds the experts of a layer as 3-D parameters, which bitsandbytes, looking for ``nn.Linear``,
leaves in 16 bits without a word (bitsandbytes #1849). Modules are recognized here by their structure, never
by the name of a model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from checkpoints.nf4_packing import SCALES, pack_matrices, packed_layout, quant_state

__all__ = ["NF4Experts", "Projection", "fused_experts", "fused_projections", "pack_experts", "packed_experts"]


@dataclass(frozen=True)
class Projection:
    """One of the two weights of fused experts, ``[experts, rows, columns]``."""

    name: str
    rows: int
    """Output features of one expert."""
    columns: int
    """Input features of one expert."""


def fused_projections(module: nn.Module) -> tuple[Projection, Projection] | None:
    """Return the two weights of fused experts that can be packed; None for any other module.

    Such a module has ``gate_up_proj`` (or ``up_proj``) and ``down_proj`` of sizes that fit, biases at most
    beside them, and is called with hidden states, chosen experts and their weights.
    """
    parameters = dict(module.named_parameters(recurse=False))
    first = "gate_up_proj" if "gate_up_proj" in parameters else "up_proj"
    names = (first, "down_proj")
    known = {*names, *(f"{name}_bias" for name in names)}
    if not set(names) <= set(parameters) <= known or any(parameters[name].ndim != 3 for name in names):
        return None
    if getattr(module, "has_post_expert_norm", False) or not _takes_routing(module):
        return None
    transposed = getattr(module, "is_transposed", False)
    up, down = (
        Projection(name, *(parameters[name].shape[:0:-1] if transposed else parameters[name].shape[1:]))
        for name in names
    )
    halves = 2 if first == "gate_up_proj" else 1
    fits = (up.rows, up.columns) == (halves * down.columns, down.rows)
    return (up, down) if fits and len(parameters[first]) == len(parameters["down_proj"]) else None


def fused_experts(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of ``model`` that hold fused experts, by name."""
    return {name: module for name, module in model.named_modules() if fused_projections(module)}


def packed_experts(model: nn.Module) -> dict[str, NF4Experts]:
    """Return the modules of ``model`` that hold packed experts, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, NF4Experts)}


def pack_experts(
    fused: nn.Module, *, compute_dtype: torch.dtype, double_quantization: bool = False
) -> NF4Experts:
    """Quantize fused experts that are in memory; ``fused`` loses its weights."""
    projections = fused_projections(fused) or ()
    weights = {one.name: getattr(fused, one.name).detach() for one in projections}
    experts = NF4Experts(fused, compute_dtype=compute_dtype, double_quantization=double_quantization)
    for name, values in weights.items():
        experts.pack(name, values)
    return experts


class NF4Experts(nn.Module):
    """Experts whose weights are packed, in place of a module that holds them fused.

    Of projection ``P`` it stores ``P_packed`` (a row of bytes for each expert) and ``P_absmax``; with double
    quantization also ``P_nested_absmax``, ``P_nested_offset`` and ``P_nested_quant_map``. They are frozen;
    gradients flow to the hidden states and the routing weights, and the backward pass dequantizes again
    instead of keeping what the forward pass dequantized.

    Args:
        fused: the module to replace; it keeps activation and gate, and loses its weights.
        compute_dtype: what an expert is dequantized to and multiplies in.
        double_quantization: also quantize the scales.

    Raises:
        TypeError: ``fused`` does not hold fused experts.
    """

    def __init__(self, fused: nn.Module, *, compute_dtype: torch.dtype, double_quantization: bool) -> None:
        super().__init__()
        projections = fused_projections(fused)
        if projections is None:
            raise TypeError(f"{type(fused).__name__} does not hold fused experts")
        self.num_experts = len(getattr(fused, projections[0].name))
        self.projections = {one.name: one for one in projections}
        self.compute_dtype = compute_dtype
        self.double_quantization = double_quantization
        self.updates: dict[str, Callable[[int, torch.Tensor], torch.Tensor]] = {}
        """What an adapter adds to a projection's output, of an expert and its inputs (``nf4_lora``)."""
        # In a tuple, so that it is no submodule: it only lends activation, gate and layout.
        self._fused: tuple[Any] = (fused,)
        for one in projections:
            delattr(fused, one.name)
            bias = fused._parameters.pop(f"{one.name}_bias", None)
            if bias is not None:
                self.register_parameter(f"{one.name}_bias", bias)
            for part, (shape, dtype) in self._layout(one).items():
                self._store(one.name, part, torch.empty(shape, dtype=dtype, device="meta"))

    def expect_fused(self) -> None:
        """Take the weights fused, under their own names, while a checkpoint is loaded; see ``pack``."""
        for one in self.projections.values():
            for part in self._layout(one):
                self._parameters[f"{one.name}_{part}"] = None
            shape = (self.num_experts, *self._stored(one))
            self.register_parameter(
                one.name, nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
            )

    def expects_fused(self, name: str) -> bool:
        """Whether ``name`` is a weight that is still to be packed."""
        return name in self.projections and self._parameters.get(name) is not None

    @torch.no_grad()
    def pack(self, name: str, weights: torch.Tensor) -> None:
        """Quantize all experts of a projection, on the device where ``weights`` are.

        Args:
            name: of the projection.
            weights: as the fused module holds them.
        """
        one = self.projections[name]
        if tuple(weights.shape) != (self.num_experts, *self._stored(one)):
            raise ValueError(f"{name} has shape {tuple(weights.shape)}, expected {self._stored(one)} each")
        matrices = weights.transpose(1, 2) if self._transposed else weights
        self._parameters.pop(name, None)
        packed = pack_matrices(matrices, double_quantization=self.double_quantization)
        for part, values in packed.items():
            self._store(name, part, values)

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return what the chosen experts make of each token, weighted and added up.

        Args:
            hidden_states: ``[tokens, hidden]``.
            top_k_index: ``[tokens, k]``: experts; one beyond the last stands for none.
            top_k_weights: ``[tokens, k]``.
        """
        chosen = top_k_index.reshape(-1)
        order = torch.argsort(chosen, stable=True)
        inputs = hidden_states.to(self.compute_dtype)[order // top_k_index.shape[-1]]
        counts = torch.bincount(chosen).tolist()
        if not counts:
            return torch.zeros_like(hidden_states)
        outputs = []
        for expert, rows in enumerate(inputs.split(counts)):
            if len(rows):
                held = expert < self.num_experts
                outputs.append(self._run(expert, rows) if held else torch.zeros_like(rows))
        weighted = torch.cat(outputs)[torch.argsort(order)] * top_k_weights.reshape(-1, 1)
        # Added in a fixed order, unlike index_add_, so that a run can be repeated.
        summed = weighted.view(*top_k_index.shape, -1).sum(dim=1)
        return summed.to(hidden_states.dtype)

    @torch.no_grad()
    def dequantized(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """Return the weights of a projection as the fused module held them."""
        from bitsandbytes.functional import dequantize_4bit

        matrices = []
        for expert in range(self.num_experts):
            packed, state = self._matrix(name, expert, dtype)
            matrices.append(dequantize_4bit(packed, state))
        weights = torch.stack(matrices)
        return weights.transpose(1, 2).contiguous() if self._transposed else weights

    def unpack(self, dtype: torch.dtype) -> nn.Module:
        """Return the fused module again, with dequantized weights; this one must not be used any more."""
        fused = self._fused[0]
        for name in self.projections:
            fused.register_parameter(name, nn.Parameter(self.dequantized(name, dtype), requires_grad=False))
            bias = self._parameters.get(f"{name}_bias")
            if bias is not None:
                fused.register_parameter(f"{name}_bias", nn.Parameter(bias.data.to(dtype)))
        return fused

    def logical_count(self, name: str) -> int | None:
        """Return how many weights a parameter of this module stands for; None where it is not packed."""
        for one in self.projections.values():
            if name == f"{one.name}_packed":
                return self.num_experts * one.rows * one.columns
            if name in {f"{one.name}_{part}" for part in SCALES}:
                return 0
        return None

    def extra_repr(self) -> str:
        """Describe the module in a printed model."""
        shapes = ", ".join(f"{one.name} {one.rows}x{one.columns}" for one in self.projections.values())
        return f"{self.num_experts} experts, {shapes}, double_quantization={self.double_quantization}"

    @property
    def _transposed(self) -> bool:
        """Whether the fused module holds ``[experts, columns, rows]``."""
        return bool(getattr(self._fused[0], "is_transposed", False))

    def _stored(self, one: Projection) -> tuple[int, int]:
        return (one.columns, one.rows) if self._transposed else (one.rows, one.columns)

    def _layout(self, one: Projection) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        return packed_layout(
            self.num_experts, one.rows * one.columns, double_quantization=self.double_quantization
        )

    def _store(self, name: str, part: str, values: torch.Tensor) -> None:
        # Parameters, not buffers: DDP sends every buffer to every rank at every step.
        setattr(self, f"{name}_{part}", nn.Parameter(values, requires_grad=False))

    def _parts(self, name: str) -> Iterator[tuple[str, torch.Tensor]]:
        for part in ("packed", *SCALES):
            values = self._parameters.get(f"{name}_{part}")
            if values is not None:
                yield part, values

    def _matrix(self, name: str, expert: int, dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
        one = self.projections[name]
        parts = dict(self._parts(name))
        state = quant_state(parts, expert, (one.rows, one.columns), dtype)
        return parts["packed"][expert].view(-1, 1), state

    def _run(self, expert: int, inputs: torch.Tensor) -> torch.Tensor:
        first, second = self.projections
        return self._product(second, expert, self._activate(self._product(first, expert, inputs)))

    def _product(self, name: str, expert: int, inputs: torch.Tensor) -> torch.Tensor:
        from bitsandbytes import matmul_4bit

        packed, state = self._matrix(name, expert, inputs.dtype)
        output: torch.Tensor = matmul_4bit(inputs, packed.t(), quant_state=state)
        if name in self.updates:
            output = output + self.updates[name](expert, inputs)
        bias = self._parameters.get(f"{name}_bias")
        return output if bias is None else output + bias[expert].to(output.dtype)

    def _activate(self, values: torch.Tensor) -> torch.Tensor:
        fused = self._fused[0]
        if "gate_up_proj" not in self.projections:
            return fused.act_fn(values)
        if hasattr(fused, "_apply_gate"):
            return fused._apply_gate(values)
        gate, up = values.chunk(2, dim=-1)
        return fused.act_fn(gate) * up


def _takes_routing(module: nn.Module) -> bool:
    """Whether it is called as transformers' ``use_experts_implementation`` has it."""
    if hasattr(module, "_apply_gate") and hasattr(module, "is_transposed"):
        return True
    names = list(inspect.signature(type(module).forward).parameters)
    return names == ["self", "hidden_states", "top_k_index", "top_k_weights"] and hasattr(module, "act_fn")
