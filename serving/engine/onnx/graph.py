"""A Hugging Face causal LM -> an ONNX graph with its KV cache as inputs and outputs.

Inputs: ``input_ids``, ``position_ids`` int64 ``[batch, length]``; ``logit_positions`` int64
``[logits]``, the tokens whose logits are wanted; ``past.N.key``, ``past.N.value`` float32
``[batch, kv_heads, capacity, head_dim]``, whose first positions hold what was computed before.
Outputs: ``logits`` float32 ``[batch, logits, vocab]``; ``present.N.*``, the same caches with the new
keys and values written in, in place where they are bound to the memory of the inputs. The capacity
must hold the longest row. Several tokens at once are for one row (``batch`` 1) that has a past, or
for rows without a past.

``torch.onnx.export(dynamo=True)`` takes the model whole because the attention is one opaque node
(``attention.py``): nothing in it depends on the lengths, so nothing has to be traced twice.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from serving.engine.forward_pass import ForwardPass, LayerShape, forward_pass
from serving.engine.onnx.attention import use_cached_attention
from serving.engine.onnx.fusions import fused
from serving.engine.onnx.session import MODEL_NAME

__all__ = ["OPSET", "write_graph"]

OPSET = 23
"""The first with RMSNormalization and RotaryEmbedding."""


@torch.inference_mode()
def write_graph(model: Any, directory: Path, *, pack_head: bool) -> None:
    """Write ``model.onnx`` and ``model.onnx.data`` into ``directory``.

    Args:
        model: a causal LM in float32 on the CPU; its layers are rewritten, so it cannot be used
            afterwards.
        directory: exists and holds neither file.
        pack_head: give a head that shares the embedding's weight a copy of its own to quantize.
    """
    use_cached_attention(model)
    layers = _cache_shapes(model)
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    keep = frozenset([head]) if tied and not pack_head else frozenset()
    with fused(model, keep=keep), _quiet():
        program = torch.onnx.export(
            _Decoder(model).eval(),
            _example(layers),
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(layers),
            input_names=["input_ids", "position_ids", "logit_positions", *_cache_names("past", layers)],
            output_names=["logits", *_cache_names("present", layers)],
            opset_version=OPSET,
            verbose=False,
        )
    program.save(directory / MODEL_NAME, external_data=True)


class _Decoder(nn.Module):
    """The model as a function of tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        logit_positions: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        last = position_ids[:, -1].to(torch.int32)
        state = ForwardPass(
            past=list(zip(past[::2], past[1::2], strict=True)),
            last_positions=last,
            length=last.max() + 1,
        )
        with forward_pass(state):
            output = self.model(
                input_ids=input_ids,
                position_ids=position_ids,
                use_cache=False,
                logits_to_keep=logit_positions,
            )
        present = [state.present[layer] for layer in sorted(state.present)]
        return (output.logits, *(tensor for pair in present for tensor in pair))


def _cache_shapes(model: Any) -> list[LayerShape]:
    """Run two tokens to see what each layer keeps."""
    with forward_pass(ForwardPass()) as state:
        model(
            input_ids=torch.zeros((1, 2), dtype=torch.int64),
            position_ids=torch.arange(2)[None],
            use_cache=False,
        )
    return [state.shapes[layer] for layer in sorted(state.shapes)]


def _example(layers: list[LayerShape]) -> tuple[torch.Tensor, ...]:
    # No two sizes are equal, and none is 1: the exporter would take them for the same, or for fixed.
    batch, length, capacity, wanted = 2, 3, 7, 5
    past = [
        torch.zeros((batch, item.key_heads, capacity, item.key_size)) for item in layers for _ in range(2)
    ]
    positions = torch.arange(length).repeat(batch, 1)
    return (torch.zeros_like(positions), positions, torch.zeros(wanted, dtype=torch.int64), *past)


def _dynamic_shapes(layers: list[LayerShape]) -> tuple[Any, ...]:
    batch, length, capacity, wanted = (Dim(name) for name in ("batch", "length", "capacity", "logits"))
    past = tuple({0: batch, 2: capacity} for _ in layers for _ in range(2))
    return ({0: batch, 1: length}, {0: batch, 1: length}, {0: wanted}, past)


def _cache_names(prefix: str, layers: list[LayerShape]) -> list[str]:
    return [f"{prefix}.{layer}.{kind}" for layer in range(len(layers)) for kind in ("key", "value")]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's deprecation warnings and progress lines."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "onnx_ir.passes")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
