"""What kind of checkpoint a path or name is, and which files hold its weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from checkpoints.errors import CheckpointError

__all__ = ["NF4_METHOD", "Source", "SourceKind", "describe_source", "read_json"]

SourceKind = Literal["hub", "safetensors", "pytorch", "gguf", "nf4", "adapter"]

NF4_METHOD = "trimaran_nf4"
"""``quant_method`` of a checkpoint whose experts are packed: ours, see ``nf4_quantizer``."""

_PYTORCH_SUFFIXES = (".pt", ".bin", ".pth")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Source:
    """Where a model comes from."""

    kind: SourceKind
    path: Path | None
    """The directory, or the file where the source is a GGUF file or a state dict; None for a hub id."""
    files: tuple[Path, ...]
    """The weight files (none for a hub id)."""

    @property
    def directory(self) -> Path | None:
        """The directory that holds config and tokenizer."""
        return self.path.parent if self.path is not None and self.path.is_file() else self.path


def describe_source(source: str | Path) -> Source:
    """Say what kind of checkpoint ``source`` is.

    Raises:
        CheckpointError: nothing is there, or what is there is no checkpoint.
    """
    path = Path(source)
    if path.is_dir():
        return _describe_directory(path)
    if path.is_file():
        return _describe_file(path)
    if isinstance(source, str) and _HUB_ID.fullmatch(source) and path.suffix not in {".gguf", ".pt"}:
        return Source("hub", None, ())
    hub = " or a hub id such as owner/name" if isinstance(source, str) else ""
    raise CheckpointError(f"{source} does not exist; give a directory, a .gguf/.pt/.bin file{hub}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, expected a JSON object")
    return value


def _describe_file(path: Path) -> Source:
    if path.suffix == ".gguf":
        return Source("gguf", path, (path,))
    if path.suffix in _PYTORCH_SUFFIXES:
        if not (path.parent / "config.json").is_file():
            raise CheckpointError(f"{path} needs the model's config.json beside it")
        return Source("pytorch", path, (path,))
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is one weight file; give the directory, {path.parent}")
    raise CheckpointError(f"{path} is no checkpoint: expected a directory or a .gguf, .pt or .bin file")


def _describe_directory(path: Path) -> Source:
    if (path / "adapter_config.json").is_file():
        return Source("adapter", path, _matching(path, "adapter_model.*"))
    ggufs = _matching(path, "*.gguf")
    if not (path / "config.json").is_file():
        if len(ggufs) == 1:
            return Source("gguf", ggufs[0], ggufs)
        if ggufs:
            raise CheckpointError(f"{path} holds {len(ggufs)} GGUF files; name one, for example {ggufs[0]}")
        raise CheckpointError(
            f"{path} is no checkpoint: it has no config.json, no adapter_config.json and no .gguf file"
        )
    weights = _matching(path, "*.safetensors")
    if weights:
        return Source("nf4" if _is_nf4(path) else "safetensors", path, weights)
    for pattern in ("pytorch_model*.bin", "*.pt", "*.pth"):
        states = _matching(path, pattern)
        if len(states) == 1 or (states and (path / "pytorch_model.bin.index.json").is_file()):
            return Source("pytorch", path, states)
        if states:
            raise CheckpointError(
                f"{path} holds {len(states)} state dicts; name one, for example {states[0]}"
            )
    raise CheckpointError(f"{path} has a config.json but no weights (.safetensors, pytorch_model.bin or .pt)")


def _is_nf4(path: Path) -> bool:
    quantization = read_json(path / "config.json").get("quantization_config") or {}
    packed = quantization.get("load_in_4bit") or quantization.get("quant_method") == NF4_METHOD
    return bool(packed) and quantization.get("bnb_4bit_quant_type") == "nf4"


def _matching(path: Path, pattern: str) -> tuple[Path, ...]:
    return tuple(sorted(item for item in path.glob(pattern) if item.is_file()))
