"""The checkpoint inside an exported version: linked as it is, or brought into the engine's own form.

A converted checkpoint keeps tokenizer, templates and configs, has the engine's model files instead of
the weights, and is sealed by a manifest of its own that names the original as its parent and says
what the conversion cost.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from checkpoints.manifest import MANIFEST_NAME, Manifest, Parent, Precision, manifest_sha256, seal
from checkpoints.progress import progress
from serving.config import ExportConfig
from serving.engine.config import EngineConfig
from serving.engine.exporter import Exporter
from serving.engine.registry import find_exporter

__all__ = ["link", "write_checkpoint"]

logger = logging.getLogger(__name__)

_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".gguf")
_LOUD = 1.01
"""A perplexity that grew by more than this factor is said loudly."""


def write_checkpoint(
    checkpoint: Path, manifest: Manifest, target: Path, engine: EngineConfig, config: ExportConfig
) -> None:
    """Write what ``engine`` serves of ``checkpoint`` into ``target``, with its manifest.

    Raises:
        UnsupportedCheckpoint: the engine cannot convert this model.
        CheckpointError: the model cannot be loaded, or has become another one by the conversion.
    """
    exporter = find_exporter(engine.engine)
    changes = exporter.converts or engine.weights != exporter.default_weights(manifest)
    if exporter.converts:
        files = [name for name in manifest.files if not name.endswith(_WEIGHT_SUFFIXES)]
    else:
        files = [*manifest.files]
    if not changes:
        files.append(MANIFEST_NAME)
    with progress() as bar:
        for name in bar.track(files, description=f"exporting for {engine.engine}"):
            link(checkpoint / name, target / name)
    if not changes:
        return
    exporter.convert(checkpoint, target, engine)
    metrics = dict(manifest.metrics)
    if config.fidelity:
        metrics.update(_measure(checkpoint, target, engine, config, exporter))
    if exporter.converts and engine.weights in ("int8", "int4"):
        manifest = replace(manifest, kept_16bit=exporter.kept(checkpoint, target, engine))
    if exporter.converts:
        manifest = _describe_converted(manifest, target, set(files), engine)
    seal(
        target,
        replace(
            manifest,
            quantization=_quantization(engine, manifest) if exporter.converts else manifest.quantization,
            settings={**manifest.settings, "export": {"engine": engine.engine, "weights": engine.weights}},
            metrics=metrics,
            parent=Parent(checkpoint.name, manifest_sha256(checkpoint)),
            files={},
        ),
    )


def _describe_converted(manifest: Manifest, target: Path, linked: set[str], engine: EngineConfig) -> Manifest:
    """Return the manifest with the size and the precision of the engine's own files."""
    size = sum(
        path.stat().st_size
        for path in target.rglob("*")
        if path.is_file() and path.relative_to(target).as_posix() not in linked
    )
    manifest = replace(manifest, bytes_per_parameter=round(size / manifest.parameters, 4))
    if engine.weights in get_args(Precision):
        manifest = replace(manifest, dtype=cast(Precision, engine.weights))
    return manifest


def _quantization(engine: EngineConfig, manifest: Manifest) -> dict[str, Any] | None:
    if engine.weights in ("int8", "int4"):
        return {"method": engine.engine, "weights": engine.weights}
    return manifest.quantization


def _measure(
    checkpoint: Path, target: Path, engine: EngineConfig, config: ExportConfig, exporter: Exporter
) -> dict[str, Any]:
    """Compare what will be served with the checkpoint; both compute in fp32 where they can."""
    from checkpoints.calibration import calibration_batches
    from checkpoints.fidelity import measure_fidelity
    from checkpoints.loading import load_model
    from checkpoints.prompt import PromptEncoder

    encoder = PromptEncoder.from_checkpoint(checkpoint, trust_remote_code=config.trust_remote_code)
    candidate = exporter.logits_model(target, engine)
    fidelity = measure_fidelity(
        load_model(checkpoint, dtype="fp32", device="cpu", trust_remote_code=config.trust_remote_code),
        candidate,
        calibration_batches(config.calibration, encoder),
    )
    figures = fidelity.as_dict()
    if (computed_in := getattr(candidate, "computed_in", None)) is not None:
        figures["computed_in"] = computed_in
    message = "%s weights: perplexity %.2f, %.2f before (x%.3f), mean KL %.4f, same first choice %.1f%%"
    values = (
        engine.weights,
        fidelity.perplexity_candidate,
        fidelity.perplexity_reference,
        fidelity.perplexity_ratio,
        fidelity.mean_kl,
        100 * fidelity.top1_agreement,
    )
    if fidelity.perplexity_ratio > _LOUD:
        logger.warning(message + ". That is more than 1%% worse; choose other --weights to avoid it", *values)
    else:
        logger.info(message, *values)
    return {"fidelity": figures, "perplexity": figures["perplexity_candidate"]}


def link(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a copy on another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The real file, not a link that may point into a cache that is cleaned.
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
