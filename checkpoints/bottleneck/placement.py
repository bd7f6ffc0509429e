"""Which modules of a causal language model the adapters go behind: found by structure."""

from __future__ import annotations

from typing import Any

from torch import nn

from checkpoints.errors import UnsupportedCheckpoint

__all__ = ["PLACEMENTS", "decoder_layers", "find_targets"]

# What transformers' decoder layers call these children. Whole names, never fragments: `gate` is in many.
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "block_sparse_moe", "moe", "ffn")

PLACEMENTS = {"attention": (_ATTENTION,), "mlp": (_MLP,), "both": (_ATTENTION, _MLP)}


def find_targets(model: Any, placement: str) -> set[str]:
    """Return the full names of the modules whose output an adapter changes.

    Args:
        model: a transformers model; on the meta device is enough.
        placement: ``attention``, ``mlp`` or ``both``.

    Raises:
        UnsupportedCheckpoint: no stack of decoder layers, or one without such a part.
    """
    stack, layers = decoder_layers(model)
    found = set()
    for index, layer in enumerate(layers):
        children = dict(layer.named_children())
        for names in PLACEMENTS[placement]:
            name = next((name for name in names if name in children), None)
            if name is None:
                raise UnsupportedCheckpoint(
                    f"bottleneck.placement = {placement}: layer {index} of it ({type(layer).__name__}) "
                    f"has no part called {' or '.join(names)}, only {', '.join(children)}; "
                    "use another placement, or method = lora"
                )
            found.add(f"{stack}.{index}.{name}")
    return found


def decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """Return the name of the outermost list of as many modules as the model has layers, and the list.

    Raises:
        UnsupportedCheckpoint: there is none.
    """
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise UnsupportedCheckpoint(
        f"{type(model).__name__} has no list of its {count} decoder layers, so nothing can go behind their "
        "parts; use method = lora"
    )
