"""An exported version's directory -> an openvino engine, warmed up."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from checkpoints.errors import ServingError
from checkpoints.manifest import Manifest
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine
from serving.engine.warm_up import warm_up

__all__ = ["load_engine"]

logger = logging.getLogger(__name__)


def load_engine(checkpoint: Path, config: EngineConfig, manifest: Manifest) -> Engine:
    """Load ``checkpoint`` and return an engine that has already generated two tokens.

    Args:
        checkpoint: an exported version's checkpoint: the model in ``openvino/``, and ``config.json``.
        config: slots, context, precision, threads.
        manifest: the checkpoint's manifest, for its stop ids.

    Raises:
        ServingError: OpenVINO is not installed, or the model files are missing or cannot be compiled.
    """
    try:
        from serving.engine.openvino.engine import OpenVinoEngine
        from serving.engine.openvino.pipeline import build_pipeline, kv_blocks
        from serving.engine.openvino.properties import compile_properties, computed_in
    except ImportError as error:
        raise ServingError(
            f"the openvino engine needs OpenVINO GenAI ({error}); pip install 'trimaran[openvino]'"
        ) from error
    _say_precision(computed_in(compile_properties(config)), config, manifest)
    try:
        pipeline = build_pipeline(checkpoint, config)
    except RuntimeError as error:
        raise ServingError(f"OpenVINO cannot load {checkpoint}: {error}") from error
    engine = OpenVinoEngine(
        pipeline,
        stop_ids=manifest.tokens.stop,
        slots=config.slots,
        max_context=config.max_context,
        kv_blocks=kv_blocks(config),
        vocab_size=_vocab_size(checkpoint),
    )
    warm_up(engine)
    return engine


def _say_precision(computes_in: str, config: EngineConfig, manifest: Manifest) -> None:
    """Say what the plugin computes in here, and whether the figures of export are of that precision."""
    logger.info("%s weights, computed in %s on this CPU", config.weights, computes_in)
    measured_in = (manifest.metrics.get("fidelity") or {}).get("computed_in")
    if measured_in not in (None, computes_in):
        logger.info(
            "fidelity and perplexity in the manifest were measured in %s, on the machine of the export",
            measured_in,
        )


def _vocab_size(checkpoint: Path) -> int:
    values = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return int(values.get("text_config", values)["vocab_size"])
