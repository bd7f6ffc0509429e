"""LoRA on routed experts that are packed to NF4 (QLoRA, arXiv:2305.14314, for fused experts).

PEFT adds the update of a fused weight to the weight itself, which a packed one has no room for. Here it is
added to what an expert makes of its tokens, ``W x + scale * B (A x)``, for the experts that are hit alone.
The two matrices are PEFT's, under PEFT's names, so an adapter fits a base whether that is packed or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import ParamWrapper
from torch import nn

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.nf4_experts import NF4Experts, packed_experts

__all__ = ["PackedExpertsLora", "adapt_packed_experts"]


def adapt_packed_experts(model: nn.Module, adapter: str, config: Any, names: Collection[str]) -> set[str]:
    """Freeze the model and put LoRA on packed experts, in place.

    Args:
        model: a transformers model.
        adapter: PEFT's name of the adapter.
        config: its ``LoraConfig``.
        names: of weights, in full: ``model.layers.1.mlp.experts.gate_up_proj``.

    Returns:
        Those of ``names`` that are weights of packed experts.
    """
    found = set()
    packed = packed_experts(model)
    if names and packed:
        model.requires_grad_(False)  # PEFT does so itself only where there is no adapter yet
    for module_name, experts in packed.items():
        wrapped: nn.Module = experts
        for projection in experts.projections:  # the first is the innermost, as PEFT nests them
            name = f"{module_name}.{projection}"
            if name in names:
                wrapped = PackedExpertsLora(
                    wrapped,
                    adapter,
                    parameter_name=projection,
                    config=config,
                    r=config.r,
                    lora_alpha=config.lora_alpha,
                )
                found.add(name)
        if wrapped is not experts:
            model.set_submodule(module_name, wrapped)
    return found


class PackedExpertsLora(ParamWrapper):
    """PEFT's wrapper of one weight of fused experts, around packed ones."""

    def get_param(self) -> torch.Tensor:
        """Return a stand-in that has the shape of the weight, and no values."""
        experts = self._experts
        one = experts.projections[self.parameter_name]
        shape = (experts.num_experts, one.rows, one.columns)
        return torch.empty(shape, dtype=torch.float32, device="meta")

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: the sum would have to be rounded to NF4 again.

        Raises:
            UnsupportedCheckpoint: always.
        """
        raise UnsupportedCheckpoint(
            "an adapter cannot be merged into experts that are packed to NF4; merge it into the original or "
            "the dequantized weights: trimaran merge"
        )

    @property
    def _experts(self) -> NF4Experts:
        experts = self.get_base_layer()
        assert isinstance(experts, NF4Experts)
        return experts

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        device = device or next(self._experts.parameters()).device
        for layers in (self.lora_A, self.lora_B):
            if adapter_name in layers and layers[adapter_name].weight.device.type != "meta":
                layers[adapter_name].to(device)

    @contextmanager
    def _activate_lora(self, active_adapters: list[str]) -> Iterator[None]:
        adapters = [name for name in active_adapters if name in self.lora_A]
        updates = self._experts.updates
        if adapters:
            updates[self.parameter_name] = partial(self._update, adapters)
        try:
            yield
        finally:
            updates.pop(self.parameter_name, None)

    def _update(self, adapters: list[str], expert: int, inputs: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=inputs.dtype, device=inputs.device)
        for name in adapters:
            first, second = self.lora_A[name].weight, self.lora_B[name].weight
            # [experts x rank, in] and [out, rank x experts], as PEFT lays them out.
            down = first.view(self.num_experts, -1, first.shape[1])[expert]
            up = second.view(second.shape[0], -1, self.num_experts)[:, :, expert]
            update = F.linear(F.linear(inputs.to(down.dtype), down), up) * self.scaling[name]
            total = total + update.to(inputs.dtype)
        return total
