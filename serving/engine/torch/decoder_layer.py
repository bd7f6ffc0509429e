"""Decoder layers of the Llama family with fewer operations, for inference on CPU.

A decode step of a few rows spends as long on small operations as on reading weights: a layer as
transformers writes it is some forty. Here the projections that read one input are one product,
queries and keys are rotated together, and what is added to the residual is added by the product
itself. Where the processor is known, all but attention is five compiled calls (``compiled/``). Angles of the
rotary embedding, masks and everything around the layers stay the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from serving.engine.torch.attention import attend
from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.rotary import rotary_call
from serving.engine.torch.kv_cache import SlotCache, SlotLayer
from serving.engine.torch.norms import RMSNorm
from serving.engine.torch.plan import Plan
from serving.engine.torch.products import are_one_product, gated_product, product, product_dtype
from serving.engine.torch.replacing import replace_layers

__all__ = ["FusedDecoderLayer", "fuse_decoder_layers", "has_only_fused_layers"]

_LAYERS = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer"})
"""Layers of transformers that compute what this one does; the tests hold each against ``generate``."""

_PARTS = frozenset({"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"})
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


class FusedDecoderLayer(nn.Module):
    """Attention with rotary embedding and grouped queries, then a gated MLP, each behind an RMS norm.

    Args:
        layer: the layer to replace, one that ``_can_fuse``.
        rows: rows that the layout of the weights is chosen for; any number can be computed.
    """

    def __init__(self, layer: nn.Module, rows: int) -> None:
        super().__init__()
        attention = cast(Any, layer.self_attn)
        mlp = cast(Any, layer.mlp)
        self.index: int = attention.layer_idx
        self.scaling: float = attention.scaling
        self.head_dim: int = attention.head_dim
        self.heads: int = attention.q_proj.out_features // attention.head_dim
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        attention_norm = RMSNorm.of(cast(nn.Module, layer.input_layernorm))
        mlp_norm = RMSNorm.of(cast(nn.Module, layer.post_attention_layernorm))
        self.query_key_value = product(projections, rows, norm=attention_norm)
        self.output = product([attention.o_proj], rows)
        self.gate_up = gated_product(mlp.gate_proj, mlp.up_proj, rows, norm=mlp_norm)
        self.down = product([mlp.down_proj], rows)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        past_key_values: SlotCache,
        **_: Any,
    ) -> torch.Tensor:
        """Return ``[rows, query, hidden]`` for ``[rows, query, hidden]``.

        Args:
            hidden_states: the layer's input.
            attention_mask: additive ``[rows, 1, query, length]``.
            position_embeddings: cosines and sines, ``[rows, query, head_dim]`` each.
            past_key_values: the slot cache, whose plan says which rows and positions these are.
        """
        rows, query, _ = hidden_states.shape
        plan = past_key_values.plan
        cache = cast(SlotLayer, past_key_values.layers[self.index])
        projected = self.query_key_value(hidden_states).view(rows, query, -1, self.head_dim)
        queries = self._place(cache, plan, projected, plan.rotation(position_embeddings))
        if plan.parts:
            attended = self._attend_in_parts(cache, plan.parts, queries)
        else:
            attended = self._attend(cache, plan, queries, attention_mask)
        hidden_states = self.output.add(attended.reshape(rows, query, -1), hidden_states)
        return self.down.add(self.gate_up(hidden_states), hidden_states)

    def _place(
        self,
        cache: SlotLayer,
        plan: Plan,
        projected: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return the rotated queries, ``[rows, query, heads, head_dim]``; keys and values go into the cache.

        Args:
            cache: of this layer.
            plan: of the pass.
            projected: queries, keys and values, ``[rows, query, heads + 2 * kv_heads, head_dim]``.
            rotation: see ``Plan.rotation``.
        """
        kv_heads = (projected.shape[2] - self.heads) // 2
        compiled = kernel("rotary", projected.dtype) if projected.device.type == "cpu" else None
        if not cache.is_initialized:
            some = projected[:, :, -kv_heads:].transpose(1, 2)
            cache.lazy_initialization(some, some)
        if compiled is not None:
            whole = projected.flatten(0, 1)
            call = rotary_call(compiled, whole, rotation, plan.places(), cache.keys, cache.values)
            call.run(torch.get_num_threads())
            return projected[:, :, : self.heads]
        rotated = projected[:, :, :-kv_heads]
        cosines, sines = (numbers.unsqueeze(2) for numbers in rotation)
        rotated = torch.addcmul(rotated * cosines, rotated.roll(self.head_dim // 2, -1), sines)
        queries, keys = rotated.split((self.heads, kv_heads), dim=2)
        values = projected[:, :, -kv_heads:]
        parts = plan.parts or (plan,)
        sizes = [part.positions.numel() for part in parts]
        pieces = (states.flatten(0, 1).split(sizes) for states in (keys, values))
        for part, *new in zip(parts, *pieces, strict=True):
            shape = (*part.positions.shape, kv_heads, self.head_dim)
            cache.store(part, *(states.view(shape).transpose(1, 2) for states in new))
        return queries

    def _attend(
        self, cache: SlotLayer, plan: Plan, queries: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Return ``[rows, query, heads, head_dim]`` for queries of that form."""
        keys, values = cache.seen(plan)
        return attend(plan, queries.transpose(1, 2), keys, values, mask, self.scaling)

    def _attend_in_parts(
        self, cache: SlotLayer, parts: Sequence[Plan], queries: torch.Tensor
    ) -> torch.Tensor:
        """Do the same for ``[1, tokens, ...]``, the parts' tokens one after the other."""
        sizes = [part.positions.numel() for part in parts]
        attended = []
        for part, one in zip(parts, queries.split(sizes, 1), strict=True):
            shape = part.positions.shape
            output = self._attend(
                cache, part, one.view(*shape, *one.shape[2:]), cast(torch.Tensor, part.mask)
            )
            attended.append(output.reshape(1, shape.numel(), -1))
        return torch.cat(attended, dim=1)


def fuse_decoder_layers(model: nn.Module, *, rows: int) -> int:
    """Replace the layers of ``model`` that are known to compute the same; return how many.

    Args:
        model: a model in ``.eval()``; it cannot be trained or saved afterwards.
        rows: rows of the usual forward pass.
    """
    return replace_layers(model, _can_fuse, lambda layer: FusedDecoderLayer(layer, rows))


def has_only_fused_layers(model: PreTrainedModel) -> bool:
    """Whether all decoder layers of ``model`` are this module's, which attend part by part."""
    fused = sum(isinstance(module, FusedDecoderLayer) for module in model.modules())
    return fused == model.config.get_text_config().num_hidden_layers


def _can_fuse(layer: nn.Module) -> bool:
    if type(layer).__name__ not in _LAYERS or not type(layer).__module__.startswith("transformers."):
        return False
    if {name for name, _ in layer.named_children()} != _PARTS:
        return False
    attention, mlp = cast(nn.Module, layer.self_attn), cast(nn.Module, layer.mlp)
    return (
        _are_linear(attention, _ATTENTION)
        and _are_linear(mlp, _MLP)
        and are_one_product([cast(nn.Module, getattr(attention, name)) for name in _ATTENTION[:3]])
        and are_one_product([cast(nn.Module, getattr(mlp, name)) for name in _MLP[:2]])
        and _norms_match(layer, cast(nn.Module, attention.q_proj))
        and isinstance(mlp.act_fn, SiLUActivation | nn.SiLU)
        and not any(hasattr(module, "_hf_hook") for module in layer.modules())
    )


def _norms_match(layer: nn.Module, linear: nn.Module) -> bool:
    """Whether the norms are in the precision that ``linear`` computes in."""
    norms = (cast(nn.Module, layer.input_layernorm), cast(nn.Module, layer.post_attention_layernorm))
    return {cast(torch.Tensor, norm.weight).dtype for norm in norms} == {product_dtype(linear)}


def _are_linear(module: nn.Module, names: Sequence[str]) -> bool:
    """Whether the layers of ``module`` are these, in one precision that products compute in."""
    children = dict(module.named_children())
    linear = {name for name, child in children.items() if [*child.parameters(), *child.buffers()]}
    if linear != set(names):
        return False
    precisions = {product_dtype(children[name]) for name in names}
    return len(precisions) == 1 and None not in precisions
