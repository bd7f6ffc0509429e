"""A checkpoint's directory -> the model files of the openvino engine."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import openvino as ov
import torch

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.loading import load_model
from checkpoints.progress import progress
from serving.engine.openvino.conversion.stateful import make_stateful
from serving.engine.openvino.conversion.tracing import trace
from serving.engine.openvino.files import MODEL_NAME

__all__ = ["convert_checkpoint", "to_graph"]

_FP16_MAX = torch.finfo(torch.float16).max


def convert_checkpoint(checkpoint: Path, folder: Path, weights: str, *, trust_remote_code: bool) -> None:
    """Write ``checkpoint`` as OpenVINO IR into ``folder``.

    The model is loaded in fp32 (4 bytes per parameter of memory) and rounded once, to ``weights``. A bf16
    checkpoint is held as fp16, which keeps every bit of its mantissa and three more; what fp16 cannot hold
    is refused, and what lies below its smallest number (6e-8) becomes 0.

    Args:
        checkpoint: a merged, unquantized checkpoint.
        folder: an existing directory.
        weights: ``fp32``, ``fp16``, ``int8`` or ``int4``.
        trust_remote_code: run Python code that comes with the checkpoint.

    Raises:
        UnsupportedCheckpoint: a weight does not fit fp16 or is not finite, or the attention has no such form.
        CheckpointError: the checkpoint cannot be loaded.
    """
    with progress() as bar:
        task = bar.add_task("converting to OpenVINO", total=4, note="loading")
        model = load_model(checkpoint, dtype="fp32", device="cpu", trust_remote_code=trust_remote_code)
        _check_range(model, checkpoint, weights)
        bar.update(task, advance=1, note="tracing")
        graph = to_graph(model)
        bar.update(task, advance=1, note=f"packing to {weights}")
        if weights in ("int8", "int4"):
            from serving.engine.openvino.conversion.compression import compress

            graph = compress(graph, weights)
        bar.update(task, advance=1, note="writing")
        ov.save_model(graph, folder / MODEL_NAME, compress_to_fp16=weights != "fp32")
        bar.update(task, advance=1, note="")
    del graph, model
    gc.collect()


def to_graph(model: Any) -> ov.Model:
    """Return a causal LM (fp32, on the CPU) as a graph with a stateful KV cache."""
    graph = trace(model)
    make_stateful(graph, model.config.get_text_config().num_hidden_layers)
    return graph


def _check_range(model: Any, checkpoint: Path, weights: str) -> None:
    """Refuse what the precision cannot hold, NaN included: GenAI would end every request beside it."""
    for name, tensor in model.named_parameters():
        largest = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
        if not math.isfinite(largest):
            raise UnsupportedCheckpoint(f"{checkpoint}: {name} holds {largest}; the checkpoint is damaged")
        if weights != "fp32" and largest > _FP16_MAX:
            raise UnsupportedCheckpoint(
                f"{checkpoint}: {name} holds {largest:g}, more than fp16 can ({_FP16_MAX:g}); "
                "export with --weights fp32, or with --engine torch"
            )
