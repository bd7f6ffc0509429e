"""A hub id, safetensors directory, ``.pt``/``.bin``, GGUF, NF4 or adapter -> model and tokenizer.

Loading is strict: a weight that is missing or fits nowhere is an error, never a random tensor.
Remote code is off unless asked for by name.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import PreTrainedModel

from checkpoints.adapters import adapter_base, adapter_manifest, attach_adapter, check_base_files
from checkpoints.base import base_manifest
from checkpoints.building import build_model, empty_model
from checkpoints.errors import CheckpointError, ConfigError
from checkpoints.load_errors import as_checkpoint_error, some
from checkpoints.nf4 import (
    check_quantizable,
    forget_unpacking,
    keep_plain_layout,
    keep_scales,
    nf4_config,
    set_compute_dtype,
)
from checkpoints.nf4_report import check_packed_size
from checkpoints.quiet import quiet_transformers
from checkpoints.sources import Source, SourceKind, describe_source
from checkpoints.tokenizer import load_tokenizer

__all__ = [
    "DTYPES",
    "Source",
    "SourceKind",
    "base_manifest",
    "describe_source",
    "empty_model",
    "load_model",
    "load_tokenizer",
]

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(
    source: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantization: Literal["nf4"] | None = None,
    double_quantization: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
    base: str | Path | None = None,
    device_map: str | dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Load a causal language model for inference.

    Args:
        source: any kind of checkpoint; see ``sources.describe_source``.
        dtype: "auto" (the checkpoint's own; bf16 for GGUF and NF4), "bf16", "fp16" or "fp32".
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        quantization: "nf4" packs Linear layers and experts while loading; computation in ``dtype``.
        double_quantization: also quantize NF4's scales.
        trust_remote_code: run Python code that comes with the checkpoint.
        revision: branch, tag or commit of a hub id.
        base: for an adapter directory, the base to use instead of the recorded one.
        device_map: spreads the model over several devices, as accelerate takes it; not for adapters.

    Returns:
        The model in ``eval()`` mode; for an adapter, a ``PeftModel`` on its base.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be loaded whole.
        UnsupportedCheckpoint: NF4 cannot pack this model (see ``nf4.check_quantizable``).
    """
    where = describe_source(source)
    target = _resolve_device(device)
    if dtype != "auto" and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}, expected auto, {', '.join(DTYPES)}")
    if where.kind == "adapter":
        assert where.path is not None
        options = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
        return _load_adapter(where.path, base, quantization, double_quantization, options)
    wanted: torch.dtype | str = DTYPES.get(dtype, "auto")
    if wanted == "auto" and (where.kind in ("gguf", "nf4") or quantization):
        wanted = torch.bfloat16
    placement: dict[str, Any] = {"dtype": wanted}
    if device_map is not None:
        placement["device_map"] = device_map
    elif target != "cpu":
        placement["device_map"] = {"": target}
    pack = None
    with as_checkpoint_error(source), quiet_transformers():
        if quantization is not None and where.kind != "nf4":
            empty = empty_model(source, trust_remote_code=trust_remote_code, revision=revision)
            check_quantizable(empty)
            pack = nf4_config(empty, cast(torch.dtype, wanted), double_quantization=double_quantization)
            if where.kind == "gguf":
                placement["config"] = empty.config  # reading it again takes seconds
        model, info = build_model(
            where, source, placement, pack, trust_remote_code=trust_remote_code, revision=revision
        )
    _check_complete(source, info)
    if pack is not None:
        check_packed_size(model, double_quantization=double_quantization)
    keep_plain_layout(model)
    if where.kind == "nf4":
        forget_unpacking(model)
        if dtype != "auto":
            set_compute_dtype(model, cast(torch.dtype, wanted))
    keep_scales(model)
    model.config.name_or_path = model.name_or_path = str(source)
    return cast(PreTrainedModel, model.eval())


def _load_adapter(
    directory: Path,
    base: str | Path | None,
    quantization: Literal["nf4"] | None,
    double_quantization: bool,
    options: dict[str, Any],
) -> PreTrainedModel:
    """Load an adapter's base, packed if it was trained on a packed one, and put the adapter on it."""
    found = base if base is not None else adapter_base(directory)
    check_base_files(directory, found)
    manifest = adapter_manifest(directory)
    settings = manifest.settings if manifest else {}
    if quantization is None and settings.get("base_quantization") == "nf4":
        quantization, double_quantization = "nf4", bool(settings.get("double_quantization", False))
    model = load_model(found, quantization=quantization, double_quantization=double_quantization, **options)
    with as_checkpoint_error(directory), quiet_transformers():
        return cast(PreTrainedModel, attach_adapter(model, directory))


def _check_complete(source: str | Path, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(f"{source} lacks weights the model needs: {some(missing)}")
    unexpected = sorted(info["unexpected_keys"])
    if unexpected:
        logger.warning("%s holds weights the model has no place for: %s", source, some(unexpected))


def _resolve_device(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}, expected auto, cpu or cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError("device is cuda, but torch finds no CUDA GPU here; use auto or cpu")
    return "cuda" if available and device != "cpu" else "cpu"
