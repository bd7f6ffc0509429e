"""Linear layers that read the same input, computed as one product, for inference on CPU.

A decode step multiplies a few rows by hundreds of weight matrices, so what a product costs before its
first multiplication counts. The projections to queries, keys and values are one matrix in three parts;
so are gate and up. The model still calls them one by one: the first call computes all of them, and the
others find theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from serving.engine.torch.products import are_one_product, product

__all__ = ["JoinedLinear", "join_linear_layers"]

_SIBLINGS = (
    ("q_proj", "k_proj", "v_proj"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("q_proj", "kv_a_proj_with_mqa"),
    ("gate_proj", "up_proj"),
)
"""Names of layers that get the same input, as transformers' modelling code calls them."""


class JoinedLinear(nn.Module):
    """One of several linear layers that share a product.

    Args:
        product: of all of them.
        part: which of them this is.
    """

    def __init__(self, product: _Product, part: int) -> None:
        super().__init__()
        self.in_features = product.in_features
        self.out_features = product.sizes[part]
        self._product = product
        self._part = part

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return ``[..., out_features]`` for ``[..., in_features]``: a view into the whole product."""
        return self._product.part(inputs, self._part)


class _Product:
    """The layers' weights on top of each other, and what they made of the last input.

    The input is recognized by being the same object, which stays alive as long as it is remembered.
    """

    def __init__(self, layers: Sequence[nn.Module], rows: int) -> None:
        parts = [cast(nn.Linear, layer) for layer in layers]
        self.in_features = parts[0].in_features
        self.sizes = [part.out_features for part in parts]
        self._whole = product(layers, rows)
        self._input: torch.Tensor | None = None
        self._outputs: dict[int, torch.Tensor] = {}

    def part(self, inputs: torch.Tensor, part: int) -> torch.Tensor:
        if self._input is not inputs or part not in self._outputs:
            self._input = inputs
            self._outputs = dict(enumerate(self._whole(inputs).split(self.sizes, dim=-1)))
        output = self._outputs.pop(part)
        if not self._outputs:
            self._input = None
        return output


def join_linear_layers(model: nn.Module, *, rows: int) -> int:
    """Join sibling layers of ``model`` that a product can stand for; return how many products they became.

    Args:
        model: a model in ``.eval()``; it cannot be trained or saved afterwards.
        rows: rows of the usual forward pass.
    """
    joined = 0
    # Those with children of these names: a list of all modules would keep what is replaced.
    names_of = {name for names in _SIBLINGS for name in names}
    parents = [item for item in model.modules() if names_of & {name for name, _ in item.named_children()}]
    for parent in parents:
        children = dict(parent.named_children())
        for names in _SIBLINGS:
            layers = [children[name] for name in names if name in children]
            if len(layers) < len(names) or not are_one_product(layers):
                continue
            shared = _Product(layers, rows)
            for part, name in enumerate(names):
                setattr(parent, name, JoinedLinear(shared, part))
            joined += 1
    return joined
