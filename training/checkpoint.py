"""The result of a full fine-tuning: a sealed checkpoint, like ``merge`` leaves one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.atomic import atomic_directory
from checkpoints.base import base_manifest
from checkpoints.loading import DTYPES
from checkpoints.manifest import Manifest, TrainingData, empty_metrics, seal
from checkpoints.quiet import quiet_transformers
from training.config import TrainConfig
from training.resume import settings_that_matter
from training.rounding import round_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["write_checkpoint"]


def write_checkpoint(
    target: Path,
    config: TrainConfig,
    base: Manifest,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    training_data: list[TrainingData],
    metrics: dict[str, Any],
) -> None:
    """Write the trained model in ``config.dtype``, with tokenizer, generation config and manifest.

    Args:
        base: manifest of the base; tokens, licence, context length and parent are taken from it.
        model: what was trained; its weights are rounded in place.
        metrics: ``final_loss`` and, where it was measured, ``eval_loss``.

    Raises:
        CheckpointError: ``target`` exists, or the disk is full; nothing half-written is left.
    """
    round_weights(model, DTYPES[config.dtype])
    model.config.use_cache = True  # off while training, and no business of the checkpoint
    with atomic_directory(target) as directory:
        with quiet_transformers():
            model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        described = base_manifest(directory, model, tokenizer)
        seal(
            directory,
            Manifest(
                kind="merged",  # whole weights, as after a merge: later stages make no difference
                base=base.base,
                method=config.method,
                settings=settings_that_matter(config),
                dtype=described.dtype,
                parameters=described.parameters,
                bytes_per_parameter=described.bytes_per_parameter,
                chat_template_sha256=described.chat_template_sha256,
                tokenizer_sha256=described.tokenizer_sha256,
                generation_config_sha256=described.generation_config_sha256,
                tokens=base.tokens,
                max_context=base.max_context,
                licence=base.licence,
                training_data=training_data,
                metrics={**empty_metrics(), **metrics},
                remote_code=base.remote_code,
                needs_import=base.needs_import,
                parent=base.parent,
            ),
        )
