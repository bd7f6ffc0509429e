"""``trimaran merge``: adapter + base -> a checkpoint that loads without PEFT.

The merge is done in fp32 and rounded once, at the end. For an adapter trained on an NF4 base there are two
bases to merge into, and the choice is the user's, by name: ``original`` undoes the rounding of NF4,
``dequantized`` keeps the very weights the adapter was trained on. Either way the result is measured
against base + adapter as trained.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from transformers import GenerationConfig
from transformers.integrations.bitsandbytes import Bnb4bitDeserialize

from checkpoints.adapters import attach_adapter, check_base_files
from checkpoints.atomic import atomic_directory
from checkpoints.base import base_manifest
from checkpoints.errors import CheckpointError, ConfigError, UnsupportedCheckpoint
from checkpoints.fidelity import calibration_batches, measure_fidelity
from checkpoints.loading import DTYPES, describe_source, load_model, load_tokenizer
from checkpoints.manifest import Manifest, Parent, manifest_sha256, read_manifest, seal
from checkpoints.prompt import PromptEncoder
from checkpoints.quiet import quiet_transformers
from training.base import is_nf4, resolve_source
from training.config import MergeConfig
from training.methods.registry import method_names, method_traits
from training.rounding import round_weights

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["merge", "merge_weights"]

logger = logging.getLogger(__name__)


def merge(config: MergeConfig) -> Path:
    """Merge an adapter into its base, measure the result, and return its directory, ``config.output``.

    Raises:
        ConfigError: ``merge_base`` does not fit the way the adapter was trained.
        ManifestError: the adapter has no manifest, or its files differ from it.
        CheckpointError: there is nothing to merge, the base is not the one it was trained on, or
            ``config.output`` exists.
        UnsupportedCheckpoint: the adapter is of a method that cannot be merged.
    """
    manifest = read_manifest(config.adapter, verify=True)
    _check_mergeable(config.adapter, manifest)
    source = resolve_source(config.base if config.base is not None else manifest.base.source)
    _check_merge_base(config, manifest, source)
    check_base_files(config.adapter, source)

    with atomic_directory(config.output, replace=config.overwrite) as directory:
        merged = merge_weights(config, manifest, source)
        round_weights(merged, DTYPES[config.dtype])
        tokenizer = load_tokenizer(config.adapter)
        merged.generation_config = GenerationConfig.from_pretrained(config.adapter)
        with quiet_transformers():
            merged.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        described = base_manifest(directory, merged, tokenizer)
        del merged  # the comparison loads what was written

        fidelity = _fidelity(config, manifest, source, directory) if config.fidelity else None
        seal(directory, _manifest(config, manifest, described, fidelity))
    return config.output


def _check_mergeable(path: Path, manifest: Manifest) -> None:
    if manifest.kind != "adapter" and manifest.method is not None and not _merges(manifest.method):
        raise CheckpointError(
            f"{path} is whole already (method {manifest.method}), so there is nothing to merge; "
            f"go on with it: trimaran quantize {path}, or trimaran export {path}"
        )
    if manifest.kind != "adapter":
        raise CheckpointError(f"{path} is a checkpoint of kind {manifest.kind}; only an adapter is merged")
    if manifest.method is not None and not _merges(manifest.method):
        raise UnsupportedCheckpoint(
            f"{path} is a {manifest.method} adapter: its non-linearity fits into no weight of the base: it "
            f"cannot be merged. Serve it unmerged, on its base: trimaran export {path} --repository MODELS"
        )


def _merges(method: str) -> bool:
    return method not in method_names() or method_traits(method).merges


def merge_weights(config: MergeConfig, manifest: Manifest, source: str) -> PreTrainedModel:
    """Return the base with the adapter merged in, all in fp32, on the CPU."""
    base = _load_base(config, manifest, source)
    adapted = attach_adapter(base, config.adapter)
    # fp32 weights on both sides, so nothing is rounded on the way.
    return cast("PreTrainedModel", adapted.merge_and_unload(safe_merge=True))


def _load_base(config: MergeConfig, manifest: Manifest, source: str) -> PreTrainedModel:
    if config.merge_base == "original":
        base = _load(source, manifest, config, dtype="fp32", device="cpu")
    else:
        packed = _load(source, manifest, config, dtype=_trained_dtype(manifest), device="cpu", nf4=True)
        base = _dequantized(packed)
    _check_hub_files(source, base, config, manifest)
    return base


def _dequantized(packed: PreTrainedModel) -> PreTrainedModel:
    """Return the NF4 model with the values of its packed weights in plain fp32 ones."""
    with quiet_transformers():
        model = packed.dequantize(dtype=torch.float32).to(torch.float32)
    # What transformers noted down to save the weights as it read them: there is nothing to unpack any more.
    conversions = getattr(model, "_weight_conversions", None) or []
    model._weight_conversions = [
        conversion
        for conversion in conversions
        if not any(isinstance(step, Bnb4bitDeserialize) for step in getattr(conversion, "operations", ()))
    ]
    return cast("PreTrainedModel", model)


def _load(
    source: str,
    manifest: Manifest,
    config: MergeConfig,
    *,
    dtype: str,
    device: Literal["auto", "cpu"],
    nf4: bool = False,
) -> PreTrainedModel:
    return load_model(
        source,
        dtype=dtype,
        device=device,
        quantization="nf4" if nf4 and not is_nf4(source) else None,
        double_quantization=bool(manifest.settings.get("double_quantization")),
        trust_remote_code=config.trust_remote_code,
        revision=manifest.base.revision,
    )


def _check_merge_base(config: MergeConfig, manifest: Manifest, source: str) -> None:
    trained_on_nf4 = _trained_on_nf4(manifest)
    if config.merge_base == "dequantized" and not trained_on_nf4:
        raise ConfigError(
            f"merge_base = dequantized, but {config.adapter} was trained on a base that was not quantized; "
            "use merge_base = original"
        )
    if config.merge_base == "original" and is_nf4(source):
        raise ConfigError(
            f"merge_base = original, but the base of {config.adapter}, {source}, is NF4 itself and does not "
            "hold the original weights; use merge_base = dequantized"
        )


def _check_hub_files(source: str, base: PreTrainedModel, config: MergeConfig, manifest: Manifest) -> None:
    """Compare a base that came from the hub; ``check_base_files`` has seen the local ones."""
    if describe_source(source).kind != "hub":
        return
    found = base_manifest(source, base, load_tokenizer(config.adapter)).base.files
    if found and manifest.base.files and found != manifest.base.files:
        raise CheckpointError(
            f"{source} is not the base that {config.adapter} was trained on: its weight files differ; "
            "name the right one with --base"
        )


def _fidelity(config: MergeConfig, manifest: Manifest, source: str, directory: Path) -> dict[str, Any]:
    """Compare what was written with base + adapter as trained.

    Where nothing is packed, both compute in fp32: the figures are then of the weights alone, and the same
    on every machine.
    """
    nf4 = _trained_on_nf4(manifest)
    dtype = _trained_dtype(manifest) if nf4 else "fp32"
    adapted = attach_adapter(
        _load(source, manifest, config, dtype=dtype, device="auto", nf4=nf4), config.adapter
    )
    candidate = load_model(directory, dtype="fp32", trust_remote_code=config.trust_remote_code)
    encoder = PromptEncoder(load_tokenizer(config.adapter), manifest.tokens)
    batches = calibration_batches(config.calibration, encoder)
    fidelity = measure_fidelity(adapted, candidate, batches, base_model=_WithoutAdapter(adapted))
    logger.info("merged against base + adapter: mean KL %.2e", fidelity.mean_kl)
    return fidelity.as_dict()


class _WithoutAdapter:
    """The base under an adapter, without loading it a second time."""

    def __init__(self, adapted: PeftModel) -> None:
        self._adapted = adapted
        self.device = adapted.device

    def __call__(self, **inputs: Any) -> Any:
        with self._adapted.disable_adapter():
            return self._adapted(**inputs)


def _manifest(
    config: MergeConfig, adapter: Manifest, described: Manifest, fidelity: dict[str, Any] | None
) -> Manifest:
    return Manifest(
        kind="merged",
        base=adapter.base,
        method=adapter.method,
        settings=adapter.settings,
        merge_base=config.merge_base,
        dtype=config.dtype,
        parameters=described.parameters,
        bytes_per_parameter=described.bytes_per_parameter,
        chat_template_sha256=described.chat_template_sha256,
        tokenizer_sha256=described.tokenizer_sha256,
        generation_config_sha256=described.generation_config_sha256,
        tokens=adapter.tokens,
        max_context=adapter.max_context,
        licence=adapter.licence,
        training_data=adapter.training_data,
        metrics={**adapter.metrics, "fidelity": fidelity},
        remote_code=adapter.remote_code,
        needs_import=adapter.needs_import,
        parent=Parent(config.adapter.resolve().name, manifest_sha256(config.adapter)),
    )


def _trained_on_nf4(manifest: Manifest) -> bool:
    return manifest.settings.get("base_quantization") == "nf4"


def _trained_dtype(manifest: Manifest) -> str:
    return str(manifest.settings.get("dtype", "bf16"))
