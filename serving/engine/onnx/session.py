"""The model file and how onnxruntime opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoints.errors import ServingError
from serving.cpus import engine_threads

__all__ = ["MODEL_NAME", "WEIGHTS_NAME", "open_session"]

MODEL_NAME = "model.onnx"
"""The graph."""

WEIGHTS_NAME = "model.onnx.data"
"""Its weights: external data, which may be larger than the 2 GB a protobuf message holds."""


def open_session(directory: Path, threads: int | None) -> Any:
    """Return an ``InferenceSession`` on the CPU for the model in ``directory``.

    Args:
        directory: holds the graph and its weights.
        threads: CPU threads; ``None`` leaves the number to ``serving.cpus.engine_threads``.

    Raises:
        ServingError: onnxruntime is not installed, or the model cannot be opened.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ServingError(
            "this version runs in onnxruntime, which is not installed; pip install 'trimaran[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = engine_threads(threads)
    options.inter_op_num_threads = 1
    # Waiting threads sleep: Triton's threads and the sampler need the same cores between two steps.
    # Spinning cost 28 ms a step of SmolLM2-135M instead of 24, and 116 instead of 96 at batch 32.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    path = directory / MODEL_NAME
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise ServingError(f"onnxruntime cannot open {path}: {error}; export the checkpoint again") from error
