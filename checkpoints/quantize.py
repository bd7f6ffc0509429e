"""``trimaran quantize``: a checkpoint -> the same in 4-bit NF4, with what it cost in its manifest."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from checkpoints.errors import CheckpointError, ConfigError, UnsupportedCheckpoint

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from checkpoints.fidelity import Fidelity
    from checkpoints.manifest import Manifest

__all__ = ["QuantizeConfig", "quantize"]

logger = logging.getLogger(__name__)


@dataclass
class QuantizeConfig:
    """Quantize a checkpoint to 4-bit NF4 (bitsandbytes), computing in bf16."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("checkpoint",)

    checkpoint: Path
    """The checkpoint to quantize: merged or base, not an adapter."""

    output: Path
    """The directory to create."""

    double_quantization: bool = False
    """Also quantize the scales: about 0.4 bits per weight smaller."""

    calibration: Path | None = None
    """JSONL to measure the loss on: text, messages, or prompt and completion. Default: packaged."""

    fidelity: bool = True
    """Measure KL, agreement and perplexity against the source and put them in the manifest."""

    overwrite: bool = False
    """Replace the output directory if it exists."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Read it first."""

    def __post_init__(self) -> None:
        if self.calibration is not None and not self.fidelity:
            raise ConfigError("calibration is given, but fidelity is false: nothing would read it")
        if self.output.absolute() == self.checkpoint.absolute():
            raise ConfigError(f"output is the checkpoint itself ({self.output}); choose another directory")


def quantize(config: QuantizeConfig) -> Path:
    """Quantize a checkpoint.

    Returns:
        The output directory, sealed; plain ``AutoModelForCausalLM.from_pretrained`` loads it (one with packed
        experts after ``import checkpoints``).

    Raises:
        UnsupportedCheckpoint: an adapter, quantized already, or weights NF4 would leave in 16 bit.
        CheckpointError: the source cannot be read or the output cannot be written.
        DataError: the calibration set cannot be used; found before anything is packed.
    """
    # Here and not above: `trimaran --help` imports this module for its config.
    from checkpoints.atomic import atomic_directory
    from checkpoints.calibration import calibration_batches
    from checkpoints.loading import describe_source, load_model, load_tokenizer
    from checkpoints.manifest import seal
    from checkpoints.progress import progress
    from checkpoints.prompt import PromptEncoder
    from checkpoints.tokens import token_ids

    trust = config.trust_remote_code
    kind = describe_source(config.checkpoint).kind
    if kind == "adapter":
        raise UnsupportedCheckpoint(f"{config.checkpoint} is an adapter; merge it first: trimaran merge")
    if kind == "nf4":
        raise UnsupportedCheckpoint(f"{config.checkpoint} is NF4 already")
    tokenizer = load_tokenizer(config.checkpoint, trust_remote_code=trust)
    batches = []
    if config.fidelity:
        batches = calibration_batches(config.calibration, PromptEncoder(tokenizer, token_ids(tokenizer)))
    with atomic_directory(config.output, replace=config.overwrite) as directory:
        with progress(counts=False) as bar:
            bar.add_task("quantize", total=None, note="")
            model = load_model(
                config.checkpoint,
                quantization="nf4",
                double_quantization=config.double_quantization,
                trust_remote_code=trust,
            )
            manifest = _manifest(config, model, tokenizer)
            _save(model, tokenizer, directory)
            del model
        if config.fidelity:
            manifest = _with_fidelity(manifest, _measure(config.checkpoint, directory, batches, trust))
        seal(directory, manifest)
    return config.output


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    from checkpoints.quiet import quiet_transformers

    with quiet_transformers():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def _measure(source: Path, directory: Path, batches: list[Tensor], trust_remote_code: bool) -> Fidelity:
    """Compare what was written, not what is in memory, with the source.

    All compute in fp32: the figures are then of the weights alone and the same on every machine, and a
    CPU without bf16 instructions is several times faster.
    """
    from checkpoints.fidelity import measure_fidelity
    from checkpoints.loading import load_model

    return measure_fidelity(
        load_model(source, dtype="fp32", trust_remote_code=trust_remote_code),
        load_model(directory, dtype="fp32", trust_remote_code=trust_remote_code),
        batches,
        base_model=_base_before_training(source, trust_remote_code),
    )


def _base_before_training(source: Path, trust_remote_code: bool) -> PreTrainedModel | None:
    """Load the base a merged checkpoint was trained from, to see how much of the training is left."""
    from checkpoints.adapters import check_base_files
    from checkpoints.loading import load_model
    from checkpoints.manifest import MANIFEST_NAME, read_manifest

    if not (source / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(source)
    if manifest.method is None:
        return None
    try:
        check_base_files(source, manifest.base.source)
        return load_model(
            manifest.base.source,
            dtype="fp32",
            trust_remote_code=trust_remote_code,
            revision=manifest.base.revision,
        )
    except CheckpointError as error:
        logger.warning("adapter retention is not measured: %s", error)
        return None


def _with_fidelity(manifest: Manifest, fidelity: Fidelity) -> Manifest:
    metrics = {
        **manifest.metrics,
        "perplexity": fidelity.as_dict()["perplexity_candidate"],
        "fidelity": fidelity.as_dict(),
    }
    return replace(manifest, metrics=metrics)


def _manifest(config: QuantizeConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Manifest:
    """The source's lineage with what quantization changes."""
    from checkpoints.base import derived_manifest

    settings = {"double_quantization": config.double_quantization, "block_size": 64, "compute_dtype": "bf16"}
    return derived_manifest(
        config.checkpoint, model, tokenizer, kind="quantized", step="quantize", settings=settings
    )
