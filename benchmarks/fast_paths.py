"""The torch engine's fast paths, and how to leave one out while an engine is loaded and run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

__all__ = ["VARIATIONS", "without"]

_FOLDER = "serving.engine.torch"
_FUSE, _JOIN, _PACK, _NORMS = (
    f"{_FOLDER}.preparation.{name}"
    for name in ("fuse_decoder_layers", "join_linear_layers", "pack_linear_layers", "fuse_norms")
)
_SLOTS = f"{_FOLDER}.runner.use_slot_attention"
_ATTEND = f"{_FOLDER}.decoder_layer.attend"
_ROWS = f"{_FOLDER}.attention.kernel_for_rows"
_PROMPTS = f"{_FOLDER}.attention.kernel_for_prompt"
_COMPILED = f"{_FOLDER}.products.compiled_in"
_ROUNDED = f"{_FOLDER}.int8_rounding.compiled_in"
_ROTATED = f"{_FOLDER}.decoder_layer.kernel"
_PROGRAM = f"{_FOLDER}.decoder_stack.kernel"


def _none(*_: Any, **__: Any) -> int:
    """Replaces what would replace layers: it replaces none."""
    return 0


def _nothing(*_: Any) -> None:
    """Replaces what would find a kernel: it finds none."""


def _attend(
    plan: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """Attend as transformers does: keys and values repeated for the query heads that share them."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    layer: Any = SimpleNamespace(num_key_value_groups=query.shape[1] // key.shape[1], is_causal=False)
    return sdpa_attention_forward(layer, query, key, value, mask, 0.0, scaling)[0]


VARIATIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "as served": {},
    "nothing compiled: oneDNN and PyTorch's operators": {
        _COMPILED: _nothing, _ROUNDED: _nothing, _ROTATED: _nothing, _ROWS: _nothing, _PROMPTS: _nothing,
    },
    "each kernel called from Python": {_PROGRAM: _nothing},
    "attention by PyTorch": {_PROGRAM: _nothing, _ROWS: _nothing, _PROMPTS: _nothing},
    "linear layers by oneDNN": {_COMPILED: _nothing, _ROUNDED: _nothing},
    "keys repeated for each query head": {_PROGRAM: _nothing, _SLOTS: _none, _ATTEND: _attend},
    "decoder layers not fused": {_FUSE: _none},
    "linear layers not packed, so nothing fused or joined": {_FUSE: _none, _JOIN: _none, _PACK: _none},
    "nothing of it: as transformers computes": {
        _FUSE: _none, _JOIN: _none, _PACK: _none, _NORMS: _none, _SLOTS: _none,
    },
}  # fmt: skip
"""Name -> what is replaced by what; the first is the engine itself."""


@contextmanager
def without(variation: str) -> Iterator[None]:
    """What to be in while an engine is loaded and while it runs, to have this variation of it."""
    with ExitStack() as stack:
        for target, replacement in VARIATIONS[variation].items():
            stack.enter_context(patch(target, replacement))
        yield
