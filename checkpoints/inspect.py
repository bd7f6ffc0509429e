"""``trimaran inspect``: what a checkpoint is, where it comes from and what it weighs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from checkpoints.errors import ManifestError
from checkpoints.manifest import MANIFEST_NAME, Manifest, manifest_sha256, read_manifest

if TYPE_CHECKING:
    from checkpoints.sources import Source

__all__ = ["InspectConfig", "inspect_checkpoint"]


@dataclass
class InspectConfig:
    """Print a checkpoint's manifest with sizes, bytes per parameter and lineage."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("checkpoint",)

    checkpoint: Path
    """The checkpoint: a directory or a weight file."""

    verify: bool = False
    """Hash every file and compare it with the manifest."""

    json: bool = False
    """Print the manifest as JSON."""


def inspect_checkpoint(config: InspectConfig) -> str:
    """Describe a checkpoint.

    Returns:
        The text to print.

    Raises:
        CheckpointError: nothing is there, or it is no checkpoint.
        ManifestError: the manifest is unreadable; with ``verify``, missing or wrong; with ``json``, missing.
    """
    path = config.checkpoint
    if not (path / MANIFEST_NAME).is_file():
        # Here and not above: describing a path may import nothing heavy, loading does.
        from checkpoints.sources import describe_source

        source = describe_source(path)
        if config.verify or config.json:
            raise ManifestError(
                f"{path} has no {MANIFEST_NAME}, so there is nothing to verify or print as JSON"
            )
        return "\n".join(_without_manifest(path, source))
    manifest = read_manifest(path, verify=config.verify)
    if config.json:
        return json.dumps(asdict(manifest), indent=2, ensure_ascii=False)
    lines = [
        f"checkpoint      {path}",
        *_identity(manifest),
        *_lineage(path, manifest),
        *_sizes(path, manifest),
        *_contract(manifest),
        *_metrics(manifest),
        f"made            {manifest.created} with "
        + ", ".join(f"{k} {v}" for k, v in manifest.tools.items()),
    ]
    if config.verify:
        lines.append(f"verified        {len(manifest.files)} files match the manifest")
    return "\n".join(lines)


def _identity(manifest: Manifest) -> list[str]:
    kind = manifest.kind + (f", {manifest.method}" if manifest.method else "")
    if manifest.merge_base:
        kind += f", merged on the {manifest.merge_base} base"
    revision = f" @ {manifest.base.revision}" if manifest.base.revision else ""
    lines = [f"kind            {kind}", f"base            {manifest.base.source}{revision}"]
    lines += [f"                {name} sha256 {digest[:16]}" for name, digest in manifest.base.files.items()]
    for data in manifest.training_data:
        lines.append(f"trained on      {data.path}, {data.rows} rows, sha256 {data.sha256[:16]}")
    lines.append(f"licence         {manifest.licence or 'not stated'}")
    if manifest.remote_code:
        lines.append("needs           --trust-remote-code (it runs Python code of its own)")
    if manifest.needs_import:
        module = "checkpoints.bottleneck" if manifest.method == "bottleneck" else "checkpoints"
        lines.append(f"needs           import {module}, before from_pretrained")
    return lines


def _lineage(path: Path, manifest: Manifest) -> list[str]:
    """Follow the parents by hash, as far as their directories are within reach."""
    lines = [f"lineage         {path.resolve().name} ({manifest.kind}) {manifest_sha256(path)[:16]}"]
    here = path.resolve()
    while manifest.parent is not None:
        parent = manifest.parent
        found = _find_parent(here, manifest)
        if found is None:
            lines.append(
                f"                <- {parent.name} {parent.manifest_sha256[:16]} (not found near here)"
            )
            break
        here, manifest = found, read_manifest(found)
        lines.append(f"                <- {parent.name} ({manifest.kind}) {parent.manifest_sha256[:16]}")
    return lines


def _find_parent(here: Path, manifest: Manifest) -> Path | None:
    assert manifest.parent is not None
    for candidate in (here.parent / manifest.parent.name, Path(manifest.base.source)):
        if (candidate / MANIFEST_NAME).is_file() and manifest_sha256(
            candidate
        ) == manifest.parent.manifest_sha256:
            return candidate.resolve()
    return None


def _sizes(path: Path, manifest: Manifest) -> list[str]:
    total = sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    lines = [
        f"size            {_megabytes(total)} in {len(manifest.files)} files",
        f"parameters      {manifest.parameters:,}, {manifest.bytes_per_parameter:.2f} bytes each",
    ]
    if manifest.quantization:
        settings = ", ".join(f"{key} {value}" for key, value in manifest.quantization.items())
        lines.append(f"quantization    {settings}")
    else:
        lines.append(f"dtype           {manifest.dtype}")
    if manifest.kept_16bit:
        reasons = Counter(tensor.reason for tensor in manifest.kept_16bit)
        summary = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        lines.append(f"kept in 16 bit  {len(manifest.kept_16bit)} tensors: {summary}")
    return lines


def _contract(manifest: Manifest) -> list[str]:
    tokens = manifest.tokens
    bos = f"{tokens.bos}" + ("" if tokens.add_bos else " (not added to plain text)")
    template = manifest.chat_template_sha256
    return [
        f"context         {manifest.max_context:,} tokens",
        f"tokens          bos {bos}, eos {tokens.eos}, pad {tokens.pad}, stop {tokens.stop}",
        f"chat template   {'sha256 ' + template[:16] if template else 'none'}",
    ]


def _metrics(manifest: Manifest) -> list[str]:
    lines = []
    for name, value in manifest.metrics.items():
        if isinstance(value, dict):
            lines.append(f"{name:<15} " + ", ".join(f"{key} {_figure(item)}" for key, item in value.items()))
        else:
            lines.append(f"{name:<15} {_figure(value)}")
    return lines


def _without_manifest(path: Path, source: Source) -> list[str]:
    from checkpoints.sources import read_json

    lines = [
        f"checkpoint      {path}",
        f"kind            {source.kind}; no {MANIFEST_NAME}, so lineage, tokens and metrics are not recorded",
        f"weights         {_megabytes(sum(item.stat().st_size for item in source.files))} in "
        + ", ".join(item.name for item in source.files),
    ]
    config_path = source.directory / "config.json" if source.directory else None
    if config_path is not None and config_path.is_file():
        config = read_json(config_path)
        lines.append(f"architecture    {', '.join(config.get('architectures') or ['not stated'])}")
        for key in ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings", "dtype"):
            if config.get(key) is not None:
                lines.append(f"{key:<15} {config[key]}")
    return lines


def _figure(value: object) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
