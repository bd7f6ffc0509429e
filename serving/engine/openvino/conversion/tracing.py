"""A Hugging Face model with explicit KV cache -> an OpenVINO graph with named inputs and outputs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openvino as ov
import torch
from openvino._offline_transformations import apply_moc_transformations
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import nn

from serving.engine.forward_pass import ForwardPass, LayerShape, forward_pass
from serving.engine.openvino.conversion.attention import use_explicit_attention
from serving.engine.openvino.conversion.cache import PassThroughCache

__all__ = ["INPUTS", "cache_names", "present_names", "trace"]

INPUTS = ("input_ids", "attention_mask", "position_ids")
"""Token inputs, int64 ``[batch, query]`` (the mask ``[batch, past + query]``)."""

_BATCH, _QUERY, _PAST = 2, 3, 2
"""Sizes of the example. The graph is dynamic in all three; they only must not look like constants."""


def cache_names(layers: int) -> list[str]:
    """Return the names of the cache inputs, keys and values in turn."""
    return [f"past_key_values.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def present_names(layers: int) -> list[str]:
    """Return the names of the cache outputs, in the order of ``cache_names``."""
    return [f"present.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


@torch.inference_mode(False)
@torch.no_grad()
def trace(model: Any) -> ov.Model:
    """Return ``model`` as a graph: tokens and past keys and values -> logits and present ones.

    Args:
        model: a causal LM in fp32 on the CPU; its attention implementation is changed.

    Raises:
        UnsupportedCheckpoint: its attention is of a kind that cannot be expressed.
    """
    use_explicit_attention(model)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")  # the only one without a loop over experts
    layers = model.config.get_text_config().num_hidden_layers
    with _quiet():
        shapes = _cached_shapes(model, layers)
        example = _example(shapes)
        traced = torch.jit.trace(_Explicit(model, layers), example, check_trace=False)
        graph = _convert(traced, example)
    names = [*INPUTS, *cache_names(layers)]
    for port, name, tensor in zip(graph.inputs, names, example, strict=True):
        port.get_tensor().set_names({name})
        node = port.get_node()
        node.set_friendly_name(name)
        sizes = [-1, -1] if tensor.dim() == 2 else [-1, tensor.shape[1], -1, tensor.shape[3]]
        node.set_partial_shape(ov.PartialShape(sizes))
    for port, name in zip(graph.outputs, ["logits", *present_names(layers)], strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    return graph


class _Explicit(nn.Module):
    """A causal LM whose past comes in as tensors and whose present goes out as tensors."""

    def __init__(self, model: Any, layers: int) -> None:
        super().__init__()
        self._model = model
        self._layers = layers

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        pairs = [(past[2 * layer], past[2 * layer + 1]) for layer in range(self._layers)]
        with forward_pass(ForwardPass(pairs)) as state:
            output = self._model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=PassThroughCache(self._layers, past[0].shape[2]),
                use_cache=True,
            )
        present = [tensor for layer in range(self._layers) for tensor in state.present[layer]]
        return output.logits, *present


def _convert(traced: Any, example: tuple[torch.Tensor, ...]) -> ov.Model:
    """Return a TorchScript module as a graph whose weights are the module's own memory.

    These are the steps of ``ov.convert_model`` without its telemetry, which is sent unless a user has
    opted out.
    """
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=example, shared_memory=True)
    graph = frontend.convert(frontend.load(decoder))
    apply_moc_transformations(graph, cf=False, smart_reshape=True)
    return graph


def _cached_shapes(model: Any, layers: int) -> list[LayerShape]:
    """Run two tokens to learn what each layer caches: configs of latent attention do not say it plainly."""
    ids = torch.zeros((1, 2), dtype=torch.long)
    with forward_pass(ForwardPass()) as state:
        model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=torch.arange(2)[None],
            past_key_values=PassThroughCache(layers, 0),
            use_cache=True,
        )
    return [state.shapes[layer] for layer in range(layers)]


def _example(shapes: list[LayerShape]) -> tuple[torch.Tensor, ...]:
    tensors = [
        torch.zeros((_BATCH, _QUERY), dtype=torch.long),
        torch.ones((_BATCH, _PAST + _QUERY), dtype=torch.long),
        torch.arange(_PAST, _PAST + _QUERY).repeat(_BATCH, 1),
    ]
    for shape in shapes:
        tensors.append(torch.zeros((_BATCH, shape.key_heads, _PAST, shape.key_size)))
        tensors.append(torch.zeros((_BATCH, shape.value_heads, _PAST, shape.value_size)))
    return tuple(tensors)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what tracing says about sizes it takes for constants: the equality tests show they are not."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
