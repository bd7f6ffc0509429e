"""An exported version's directory -> an onnxruntime engine, warmed up."""

from __future__ import annotations

from pathlib import Path

import torch

from checkpoints.manifest import Manifest
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine
from serving.engine.onnx.runner import OnnxRunner
from serving.engine.onnx.session import open_session
from serving.engine.slots.engine import SlotEngine
from serving.engine.warm_up import warm_up

__all__ = ["load_engine"]


def load_engine(checkpoint: Path, config: EngineConfig, manifest: Manifest) -> Engine:
    """Open the model in ``checkpoint`` and return an engine that has already generated two tokens.

    Args:
        checkpoint: a directory with ``model.onnx`` and ``model.onnx.data``.
        config: slots, context, threads.
        manifest: the checkpoint's manifest, for its stop ids.

    Raises:
        ServingError: onnxruntime is missing or cannot open the model.
    """
    # torch only samples here. With threads of its own its OpenMP pool spins for a while after each
    # operation, on the cores that onnxruntime needs next: 31 ms a step of SmolLM2-135M instead of 24.
    torch.set_num_threads(1)
    engine = SlotEngine(
        OnnxRunner(open_session(checkpoint, config.threads), config.slots, config.max_context),
        stop_ids=manifest.tokens.stop,
        slots=config.slots,
        max_context=config.max_context,
        prefill_chunk=config.prefill_chunk,
    )
    warm_up(engine)
    return engine
