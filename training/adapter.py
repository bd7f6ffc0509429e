"""The result of a run: a sealed adapter directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.atomic import atomic_directory
from checkpoints.lora_targets import save_targets
from checkpoints.manifest import Manifest, TrainingData, empty_metrics, seal
from training.config import TrainConfig
from training.resume import settings_that_matter
from training.start_adapter import adapter_parent

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

__all__ = ["adapter_manifest", "write_adapter"]


def adapter_manifest(
    config: TrainConfig,
    base: Manifest,
    model: PeftModel,
    *,
    training_data: list[TrainingData],
    metrics: dict[str, Any],
) -> Manifest:
    """Describe the adapter: what it is trained on, how, and what it measures.

    Args:
        base: manifest of the base; tokens, hashes, licence and context length are taken from it, and the
            parent where the run did not go on from another adapter.
        metrics: ``final_loss`` and, where it was measured, ``eval_loss``.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parameters = sum(parameter.numel() for parameter in trained)
    size = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    return Manifest(
        kind="adapter",
        base=base.base,
        method=config.method,
        settings=settings_that_matter(config),
        dtype="fp32",
        parameters=parameters,
        bytes_per_parameter=size / parameters,
        chat_template_sha256=base.chat_template_sha256,
        tokenizer_sha256=base.tokenizer_sha256,
        generation_config_sha256=base.generation_config_sha256,
        tokens=base.tokens,
        max_context=base.max_context,
        licence=base.licence,
        training_data=training_data,
        metrics={**empty_metrics(), **metrics},
        remote_code=base.remote_code,
        # PEFT knows this method only after `import checkpoints.bottleneck`.
        needs_import=base.needs_import or config.method == "bottleneck",
        parent=adapter_parent(config.adapter) or base.parent,
    )


def write_adapter(
    target: Path, model: PeftModel, tokenizer: PreTrainedTokenizerBase, *, source: str, manifest: Manifest
) -> None:
    """Write adapter weights, adapter config, tokenizer with chat template, generation config and manifest.

    Args:
        source: the base, written to ``adapter_config.json`` as the place to find it again.

    Raises:
        CheckpointError: ``target`` exists, or the disk is full; nothing half-written is left.
    """
    settings = model.peft_config["default"]
    settings.base_model_name_or_path = source
    settings.revision = manifest.base.revision
    if settings.peft_type == "LORA":
        save_targets(settings, model)
    with atomic_directory(target) as directory:
        # The embeddings were not resized; "auto" would look for the base's config on the hub to find out.
        model.save_pretrained(str(directory), save_embedding_layers=False)
        (directory / "README.md").unlink(missing_ok=True)  # a model card template with nothing filled in
        tokenizer.save_pretrained(directory)
        model.generation_config.save_pretrained(directory)
        seal(directory, manifest)
