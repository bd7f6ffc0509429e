"""A checkpoint -> ``model.onnx`` and ``model.onnx.data``, verified before they appear."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from checkpoints.errors import TrimaranError, UnsupportedCheckpoint
from checkpoints.loading import load_model
from checkpoints.progress import progress
from serving.engine.onnx.graph import write_graph
from serving.engine.onnx.quantization import BITS, quantize_weights
from serving.engine.onnx.session import MODEL_NAME, WEIGHTS_NAME
from serving.engine.onnx.support import check_architecture
from serving.engine.onnx.verification import check_file, check_finite, check_logits, probe

__all__ = ["convert"]

logger = logging.getLogger(__name__)


def convert(checkpoint: Path, target: Path, weights: str) -> None:
    """Write the ONNX files of ``checkpoint`` into ``target``; both appear when they are verified.

    The model is loaded in float32: 16-bit weights are float32 numbers, so nothing is rounded. At
    its peak, memory holds three times the float32 weights, and five to six times when they are quantized.

    Args:
        checkpoint: a directory with an unquantized causal LM.
        target: an existing directory.
        weights: ``fp32``, ``int8`` or ``int4``.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ExportError: the written model does not equal torch's.
        UnsupportedCheckpoint: the model cannot be exported.
    """
    with progress() as bar, tempfile.TemporaryDirectory(dir=target, prefix=".onnx-") as workspace:
        task = bar.add_task("converting to ONNX", total=4, note="loading")
        model = load_model(checkpoint, dtype="fp32", device="cpu")
        check_architecture(model.config)
        expected = probe(model)
        bar.update(task, advance=1, note="writing the graph")
        written = Path(workspace) / "fp32"
        written.mkdir()
        _write(model, written, pack_head=weights in BITS)
        del model
        bar.update(task, advance=1, note="comparing with torch")
        check_file(written)
        check_logits(written, expected)
        bar.update(task, advance=1, note=f"packing to {weights}")
        if weights in BITS:
            packed = Path(workspace) / weights
            packed.mkdir()
            quantize_weights(written, packed, weights)
            check_file(packed)
            check_finite(packed, expected)
            written = packed
        # onnx writes external data for its owner alone; Triton may run as another user.
        shutil.copymode(written / MODEL_NAME, written / WEIGHTS_NAME)
        # The graph last: where it is, its weights are.
        for name in (WEIGHTS_NAME, MODEL_NAME):
            os.replace(written / name, target / name)
        bar.update(task, advance=1, note="")
    logger.info("wrote %s with %s weights", target / MODEL_NAME, weights)


def _write(model: Any, directory: Path, *, pack_head: bool) -> None:
    kind = model.config.get_text_config().model_type
    try:
        write_graph(model, directory, pack_head=pack_head)
    except (TrimaranError, OSError):
        raise
    except Exception as error:  # the exporter's own errors share no base class
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UnsupportedCheckpoint(
            f"model type {kind!r} could not be exported to ONNX ({reason[0]}); use the torch engine"
        ) from error
