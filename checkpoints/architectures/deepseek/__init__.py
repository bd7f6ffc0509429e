"""DeepSeek-MoE (Dai et al. 2024, arXiv:2401.06066), the model of ``model_type: deepseek``.

Llama's decoder whose feed-forward layers, but for the first few, are a mixture: many narrow experts of
which a softmax gate chooses some for each token, and shared experts that every token passes.

configuration  the published ``config.json``
experts        routed experts fused in two 3-D weights; the shared ones grouped in one MLP
router         the gate
mixture        gate, routed and shared experts together: the layer
load_balance   the auxiliary loss that spreads tokens over experts
modeling       decoder and causal language model
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checkpoints.architectures.deepseek.configuration import DeepseekConfig
    from checkpoints.architectures.deepseek.modeling import DeepseekForCausalLM, DeepseekModel

__all__ = ["DeepseekConfig", "DeepseekForCausalLM", "DeepseekModel"]

_MODULES = {
    "DeepseekConfig": "configuration",
    "DeepseekForCausalLM": "modeling",
    "DeepseekModel": "modeling",
}


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: this package itself must stay free of transformers."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
