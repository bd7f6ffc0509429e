"""Which engine and which precision a checkpoint is exported for."""

from __future__ import annotations

import logging
from typing import Any

from checkpoints.errors import ExportError, UnsupportedCheckpoint
from checkpoints.manifest import Manifest
from serving.config import ExportConfig
from serving.engine.config import EngineConfig
from serving.engine.registry import ENGINES, find_exporter

__all__ = ["choose_engine"]

logger = logging.getLogger(__name__)

DEFAULT_MAX_CONTEXT = 2048


def choose_engine(config: ExportConfig, manifest: Manifest, model_config: Any) -> EngineConfig:
    """Return the engine settings of a version.

    Args:
        config: what was asked for.
        manifest: the checkpoint's manifest.
        model_config: its Hugging Face config.

    Raises:
        ExportError: a setting does not fit the checkpoint, or the engine is not installed.
        UnsupportedCheckpoint: the engine cannot serve this model; names the engines that can.
    """
    if config.engine == "auto":
        return _first_that_serves(config, manifest, model_config)
    missing = find_exporter(config.engine).installed()
    if missing is not None:
        raise ExportError(f"engine {config.engine} needs a package that is not here: {missing}")
    try:
        return _checked(config.engine, config, manifest, model_config)
    except UnsupportedCheckpoint as error:
        others = [name for name in ENGINES if _serves(name, config, manifest, model_config)]
        remedy = f"; export with --engine {others[0]}" if others else "; no engine serves it as asked"
        raise UnsupportedCheckpoint(f"{error}{remedy}") from error


def _first_that_serves(config: ExportConfig, manifest: Manifest, model_config: Any) -> EngineConfig:
    """openvino on a CPU, else torch, unless for these weights torch was measured to be faster."""
    reasons = []
    names = ("openvino", "torch")
    if find_exporter("torch").is_fastest(config.weights, model_config):
        names = ("torch", "openvino")
    for name in names:
        if name == "openvino" and _wants_gpu(config):
            continue
        missing = find_exporter(name).installed()
        if missing is not None:
            reasons.append(f"{name}: {missing}")
            continue
        try:
            settings = _checked(name, config, manifest, model_config)
        except UnsupportedCheckpoint as error:
            reasons.append(f"{name}: {error}")
            continue
        for reason in reasons:
            logger.info("not served by %s", reason)
        return settings
    raise UnsupportedCheckpoint(f"no engine serves this checkpoint as asked. {'. '.join(reasons)}")


def _serves(name: str, config: ExportConfig, manifest: Manifest, model_config: Any) -> bool:
    if find_exporter(name).installed() is not None:
        return False
    try:
        _checked(name, config, manifest, model_config)
    except UnsupportedCheckpoint:
        return False
    return True


def _wants_gpu(config: ExportConfig) -> bool:
    if config.device != "auto":
        return config.device == "gpu"
    import torch

    return torch.cuda.is_available()


def _checked(name: str, config: ExportConfig, manifest: Manifest, model_config: Any) -> EngineConfig:
    """Return the settings of a version for engine ``name``, or raise UnsupportedCheckpoint."""
    exporter = find_exporter(name)
    if config.prefix_cache and name != "torch":
        raise UnsupportedCheckpoint(f"prefix_cache is kept by the torch engine, not by {name}")
    if config.device_map != "none" and name != "torch":
        raise UnsupportedCheckpoint(f"device_map is for the torch engine, not for {name}")
    weights = config.weights or exporter.default_weights(manifest)
    _check_precision(name, "weights", weights, exporter.weights)
    kv_dtype = config.kv_dtype or exporter.default_kv_dtype(manifest, weights)
    _check_precision(name, "kv_dtype", kv_dtype, exporter.kv_dtypes)
    max_context = _max_context(config, manifest)
    device = {"auto": "auto", "cpu": "cpu", "gpu": "cuda"}[config.device]
    if (name, weights) == ("torch", "int8") and device == "auto":
        device = "cuda" if _wants_gpu(config) else "cpu"  # wherever it is served
    settings = EngineConfig(
        engine=name,
        weights=weights,
        max_context=max_context,
        slots=config.slots,
        kv_dtype=kv_dtype,
        kv_tokens=config.kv_tokens or exporter.default_kv_tokens(config.slots, max_context),
        threads=config.threads,
        prefill_chunk=config.prefill_chunk or exporter.prefill_chunk,
        prefix_cache=config.prefix_cache,
        stream_interval=config.stream_interval,
        own_process=exporter.own_process,
        device_map=config.device_map,
        device=device,
        trust_remote_code=manifest.remote_code,
    )
    exporter.check(manifest, model_config, settings)
    return settings


def _check_precision(engine: str, name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise UnsupportedCheckpoint(
            f"{name} is {value}, which the {engine} engine does not have; accepted: {', '.join(accepted)}"
        )


def _max_context(config: ExportConfig, manifest: Manifest) -> int:
    wanted = config.max_context or min(manifest.max_context, DEFAULT_MAX_CONTEXT)
    if wanted > manifest.max_context:
        raise ExportError(
            f"max_context is {wanted}, but {config.checkpoint} was made for at most {manifest.max_context}"
        )
    return wanted
