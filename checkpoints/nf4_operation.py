"""The step that packs a weight while transformers loads a checkpoint."""

from __future__ import annotations

from typing import Any

from transformers.integrations.bitsandbytes import Bnb4bitQuantize
from transformers.quantizers.quantizers_utils import get_module_from_name

from checkpoints.nf4_experts import NF4Experts

__all__ = ["NF4Quantize"]


class NF4Quantize(Bnb4bitQuantize):
    """bitsandbytes' step for Linear layers; experts pack themselves.

    By the time it runs, transformers has joined the experts of the checkpoint, one tensor each, to the
    fused weight of one projection of one layer: no more than that is in memory unpacked.
    """

    def convert(
        self,
        input_dict: dict[str, Any],
        full_layer_name: str | None = None,
        model: Any = None,
        missing_keys: set[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Pack the one weight in ``input_dict``; return what transformers has still to put in place."""
        ((name, value),) = input_dict.items()
        module, projection = get_module_from_name(model, name)
        if not isinstance(module, NF4Experts):
            packed: dict[str, Any] = super().convert(
                input_dict, full_layer_name=full_layer_name, model=model, missing_keys=missing_keys, **kwargs
            )
            return packed
        module.pack(projection, value[0] if isinstance(value, list) else value)
        if missing_keys is not None:
            missing_keys.discard(name)
        return {}
