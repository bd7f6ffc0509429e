"""An exported version's directory -> a torch engine, warmed up."""

from __future__ import annotations

from pathlib import Path

import torch

from checkpoints.errors import ServingError
from checkpoints.loading import DTYPES
from checkpoints.manifest import Manifest
from serving.cpus import engine_threads
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine
from serving.engine.slots.engine import SlotEngine
from serving.engine.torch.precision import load_in_precision
from serving.engine.torch.prefix_cache import BLOCK_SIZE, PrefixCache
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.runner import TorchRunner
from serving.engine.torch.support import check_supported
from serving.engine.warm_up import warm_up

__all__ = ["load_engine"]


def load_engine(checkpoint: Path, config: EngineConfig, manifest: Manifest) -> Engine:
    """Load ``checkpoint`` and return an engine that has already generated two tokens.

    Args:
        checkpoint: a directory with a manifest.
        config: slots, context, precision, threads.
        manifest: the checkpoint's manifest, for its stop ids.

    Raises:
        CheckpointError: the checkpoint cannot be loaded or served.
        ServingError: the KV precision asked for is not the one the model computes in.
    """
    torch.set_num_threads(engine_threads(config.threads))
    model = load_in_precision(checkpoint, config)
    check_supported(model.config, config.max_context)
    if model.dtype != DTYPES[config.kv_dtype]:
        raise ServingError(
            f"kv_dtype is {config.kv_dtype}, but the model computes in {model.dtype}; export again"
        )
    prepare_model(model)
    runner = TorchRunner(model, config.slots, config.max_context)
    if config.device_map == "none":
        runner.capture_graphs()
    engine = SlotEngine(
        runner,
        stop_ids=manifest.tokens.stop,
        slots=config.slots,
        max_context=config.max_context,
        prefill_chunk=config.prefill_chunk,
        prefixes=_prefixes(runner, config),
    )
    warm_up(engine)
    return engine


def _prefixes(runner: TorchRunner, config: EngineConfig) -> PrefixCache | None:
    """Return the store of prompt beginnings, a quarter as large as the slots' own, if there is to be one."""
    if not config.prefix_cache:
        return None
    blocks = config.slots * config.max_context // (4 * BLOCK_SIZE)
    return PrefixCache(runner.cache, blocks=max(1, blocks), block_size=BLOCK_SIZE)
