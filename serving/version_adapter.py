"""The checkpoint inside an exported version, for an adapter that is served unmerged: adapter and base.

::

    checkpoint/
    ├── adapter_config.json, adapter_model.safetensors, tokenizer, ...   the adapter's files
    ├── config.json                                                      the base's, for what sizes a model
    ├── base/                                                            weights and configs of the base
    └── trimaran.json                                                    seals all of them
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from checkpoints.adapters import BUNDLED_BASE, adapter_base, check_base_files
from checkpoints.errors import CheckpointError, ExportError
from checkpoints.manifest import MANIFEST_NAME, Manifest, Parent, Precision, manifest_sha256, seal
from checkpoints.progress import progress
from checkpoints.sources import Source, describe_source
from serving.config import ExportConfig
from serving.version_checkpoint import link

__all__ = ["as_served", "find_base", "is_served_unmerged", "write_adapter"]

_CONFIGS = ("config.json", "generation_config.json", "*.index.json", "*.py")


def is_served_unmerged(manifest: Manifest) -> bool:
    """Whether this is an adapter that no merge can fold into its base."""
    return manifest.kind == "adapter" and manifest.method == "bottleneck"


def find_base(config: ExportConfig, manifest: Manifest) -> Source:
    """Return the base of ``config.checkpoint``: a directory with config and weights.

    Raises:
        ExportError: it is not there, or is no such directory.
        CheckpointError: it is another one than the adapter was trained on.
    """
    checkpoint = Path(config.checkpoint)
    try:
        name = config.base if config.base is not None else adapter_base(checkpoint)
    except CheckpointError as error:
        raise ExportError(f"{error} (--base)") from error
    source = describe_source(name)
    if source.kind == "hub":
        source = describe_source(_snapshot(name, manifest.base.revision))
    if source.kind in ("gguf", "adapter") or source.directory is None:
        raise ExportError(
            f"the base of {checkpoint}, {name}, is of kind {source.kind}; only a directory with config.json "
            "and weights is served under an adapter: train on such a one"
        )
    if not (source.directory / "config.json").is_file():
        raise ExportError(f"the base of {checkpoint}, {name}, has no config.json")
    check_base_files(checkpoint, cast(Path, source.path))
    return source


def as_served(manifest: Manifest) -> Manifest:
    """Return the adapter's manifest with precision and quantization of what is served: of its base.

    Base and adapter compute as they were trained.
    """
    quantization: dict[str, Any] | None = None
    if manifest.settings.get("base_quantization") == "nf4":
        double = bool(manifest.settings.get("double_quantization", False))
        quantization = {"method": "nf4", "double_quantization": double}
    dtype = cast(Precision, manifest.settings.get("dtype", manifest.dtype))
    return replace(manifest, dtype=dtype, quantization=quantization)


def write_adapter(checkpoint: Path, manifest: Manifest, base: Source, target: Path) -> None:
    """Link adapter and base into ``target`` and seal them.

    Args:
        checkpoint: the adapter's directory.
        manifest: as ``as_served`` returns it.
        base: as ``find_base`` returns it.
        target: an existing directory.
    """
    directory = cast(Path, base.directory)
    configs = {path for pattern in _CONFIGS for path in directory.glob(pattern) if path.is_file()}
    files = [(checkpoint / name, target / name) for name in manifest.files]
    files += [(path, target / BUNDLED_BASE / path.name) for path in sorted({*base.files, *configs})]
    files.append((directory / "config.json", target / "config.json"))
    with progress() as bar:
        for source, place in bar.track(files, description="exporting adapter and base"):
            link(source, place)
    assert not (target / MANIFEST_NAME).exists()
    seal(target, replace(manifest, parent=Parent(checkpoint.name, manifest_sha256(checkpoint)), files={}))


def _snapshot(name: str, revision: str | None) -> Path:
    """Return where the hub's client keeps a model that training has fetched."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        raise ExportError(
            f"the base {name} is not in the hub's cache of this machine; fetch it into a directory and name "
            "that: --base DIRECTORY"
        )
    return Path(config).parent
