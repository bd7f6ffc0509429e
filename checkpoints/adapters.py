"""Adapter directories: which base an adapter belongs to, and loading both together."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from checkpoints.errors import CheckpointError
from checkpoints.manifest import MANIFEST_NAME, Manifest, file_sha256, read_manifest
from checkpoints.sources import describe_source, read_json

__all__ = ["BUNDLED_BASE", "adapter_base", "adapter_manifest", "attach_adapter", "check_base_files"]

BUNDLED_BASE = "base"
"""Folder in an adapter's directory that holds its base, where both are served together."""


def adapter_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of an adapter directory; None where other tools made the adapter."""
    return read_manifest(directory) if (directory / MANIFEST_NAME).is_file() else None


def adapter_base(directory: Path) -> str:
    """Return the path or hub id of the base an adapter was trained on.

    Looked for beside it (``BUNDLED_BASE``), in the manifest, then in ``adapter_config.json``; a relative
    path is tried from the working directory and from the adapter's.

    Raises:
        CheckpointError: no base is named, or it is not there.
    """
    if (directory / BUNDLED_BASE).is_dir():
        return str(directory / BUNDLED_BASE)
    manifest = adapter_manifest(directory)
    named = [manifest.base.source] if manifest else []
    named.append(str(read_json(directory / "adapter_config.json").get("base_model_name_or_path") or ""))
    named = [name for name in named if name]
    if not named:
        raise CheckpointError(
            f"{directory} names no base model (base_model_name_or_path in adapter_config.json)"
        )
    for name in named:
        for candidate in (Path(name), directory / name):
            if candidate.exists():
                return str(candidate)
    for name in named:
        try:
            describe_source(name)
        except CheckpointError:
            continue
        return name
    raise CheckpointError(
        f"the base of {directory} is not there: {' or '.join(dict.fromkeys(named))}. "
        "Put it back, or name the base to use"
    )


def check_base_files(directory: Path, base: str | Path) -> None:
    """Compare the base's weight files with the hashes the adapter's manifest recorded.

    Raises:
        CheckpointError: a file differs: the adapter belongs to another base.
    """
    manifest = adapter_manifest(directory)
    if manifest is None or not manifest.base.files:
        return
    if Path(base) == directory / BUNDLED_BASE:  # sealed with the adapter
        return
    found = {path.name: file_sha256(path) for path in describe_source(base).files}
    if found and found != manifest.base.files:
        different = sorted(
            name
            for name in found.keys() | manifest.base.files
            if found.get(name) != manifest.base.files.get(name)
        )
        raise CheckpointError(
            f"{base} is not the base {directory} was trained on: {different[0]} differs. "
            f"It was trained on {manifest.base.source}"
        )


def attach_adapter(model: Any, directory: Path) -> Any:
    """Return a PEFT model: ``model`` with the adapter of ``directory`` on it, for inference."""
    from peft import PeftModel

    from checkpoints.lora_targets import targets_as_named

    settings = read_json(directory / "adapter_config.json")
    if settings.get("peft_type") == "BOTTLENECK":
        import checkpoints.bottleneck  # noqa: F401 - PEFT knows this method only then
    if settings.get("use_dora"):
        _keep_layout(model)
    with warnings.catch_warnings(), targets_as_named():
        # PEFT 0.21 reads an attribute that transformers 5 renamed; the user can do nothing about it.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return PeftModel.from_pretrained(model, str(directory)).eval()


def _keep_layout(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a CPU: DoRA reads them, and knows one layout only."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
