"""Experts of fp32 weights computed in bf16 under autocast, as linear layers are.

transformers multiplies fused experts by ``grouped_mm``, which autocast does not know (pytorch #174763): it
takes the precision of the weights. So full fine-tuning of fp32 weights would compute the linear layers in
bf16, and the experts, nine tenths of a mixture, in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from checkpoints.nf4_experts import fused_experts
from training.fused.apply import computed_by

__all__ = ["autocast_experts"]


@contextmanager
def autocast_experts(model: nn.Module) -> Iterator[int]:
    """Give the fused experts of ``model`` weights in autocast's precision, wherever autocast is on.

    Within the block. Gradients reach the weights themselves, in their own precision.

    Yields:
        How many modules hold such experts.
    """
    found = fused_experts(model).values()
    with ExitStack() as stack:
        for module in found:
            stack.enter_context(computed_by(module, partial(_forward, module, module.forward)))
        yield len(found)


def _forward(
    experts: nn.Module, own: Callable[..., Tensor], hidden: Tensor, *rest: Any, **named: Any
) -> Tensor:
    kind = hidden.device.type
    if not torch.is_autocast_enabled(kind):
        return own(hidden, *rest, **named)
    dtype = torch.get_autocast_dtype(kind)
    wide = {name: one for name, one in experts.named_parameters(recurse=False) if one.dtype == torch.float32}
    # Attributes of the instance are found before its parameters.
    experts.__dict__.update({name: one.to(dtype) for name, one in wide.items()})
    try:
        return own(hidden, *rest, **named)
    finally:
        for name in wide:
            del experts.__dict__[name]
