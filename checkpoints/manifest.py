"""The manifest: lineage and contract that travel with every checkpoint.

``trimaran.json`` is written last, when every other file is in place, and it seals them: it holds
the sha256 of each. A later stage writes its own manifest and names this one's hash as its parent.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, Literal

from checkpoints.atomic import write_text_atomically
from checkpoints.errors import ManifestError
from checkpoints.records import RecordError, build_record

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "BaseModel",
    "KeptTensor",
    "Manifest",
    "Parent",
    "Precision",
    "TokenIds",
    "TrainingData",
    "empty_metrics",
    "file_sha256",
    "manifest_sha256",
    "read_manifest",
    "seal",
    "tool_versions",
]

MANIFEST_NAME = "trimaran.json"
SCHEMA_VERSION = 1

Kind = Literal["base", "adapter", "merged", "quantized", "full", "pruned"]
Precision = Literal["bf16", "fp16", "fp32"]

_TOOLS = ("trimaran", "torch", "transformers", "peft", "bitsandbytes", "safetensors")


@dataclass(frozen=True)
class TokenIds:
    """The ids that begin and end a text."""

    bos: int | None
    eos: list[int]
    pad: int | None
    stop: list[int]
    """Every id that ends generation: ``eos`` and the chat template's end-of-turn tokens."""
    add_bos: bool
    """Whether plain text gets a BOS in front."""


@dataclass(frozen=True)
class BaseModel:
    """The model a checkpoint was made from."""

    source: str
    """Hub id or path, as ``load_model`` takes it."""
    revision: str | None
    files: dict[str, str]
    """sha256 of each weight file, by file name."""


@dataclass(frozen=True)
class Parent:
    """The checkpoint of the stage before."""

    name: str
    manifest_sha256: str


@dataclass(frozen=True)
class TrainingData:
    """A file that was trained on."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class KeptTensor:
    """A tensor that quantization left in 16 (or 32) bits."""

    name: str
    dtype: str
    reason: str


def empty_metrics() -> dict[str, Any]:
    """Return the metrics every manifest carries, null until they are measured."""
    return {"final_loss": None, "eval_loss": None, "perplexity": None, "fidelity": None}


def tool_versions() -> dict[str, str]:
    """Return the versions of the tools that make checkpoints, where they are installed."""
    versions = {"python": python_version()}
    for name in _TOOLS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Manifest:
    """What ``trimaran.json`` holds."""

    kind: Kind
    base: BaseModel
    dtype: Precision
    """Of the weights; for a quantized checkpoint, of the computation and the unpacked tensors."""
    parameters: int
    """Logical parameters: a tied weight counts once, a packed 4-bit weight by its real shape."""
    bytes_per_parameter: float
    tokens: TokenIds
    max_context: int
    method: str | None = None
    """Training method (``lora``, ...), null for a base model."""
    settings: dict[str, Any] = field(default_factory=dict)
    merge_base: Literal["original", "dequantized"] | None = None
    quantization: dict[str, Any] | None = None
    kept_16bit: list[KeptTensor] = field(default_factory=list)
    """Every tensor a quantized checkpoint did not pack; empty when nothing is quantized."""
    chat_template_sha256: str | None = None
    tokenizer_sha256: str | None = None
    generation_config_sha256: str | None = None
    licence: str | None = None
    training_data: list[TrainingData] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=empty_metrics)
    remote_code: bool = False
    """Whether loading needs ``trust_remote_code``."""
    needs_import: bool = False
    """Whether plain ``from_pretrained`` needs ``import checkpoints`` first."""
    parent: Parent | None = None
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file of the checkpoint, by relative path; filled by ``seal``."""
    tools: dict[str, str] = field(default_factory=tool_versions)
    schema_version: int = SCHEMA_VERSION
    created: str = field(default_factory=_now)
    """UTC, ISO 8601."""


def read_manifest(directory: Path, *, verify: bool = False) -> Manifest:
    """Read a checkpoint's manifest.

    Args:
        directory: the checkpoint.
        verify: also hash every file and compare.

    Raises:
        ManifestError: missing, unreadable, of a newer schema, or (``verify``) a file differs.
    """
    path = Path(directory) / MANIFEST_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ManifestError(
            f"{directory} has no {MANIFEST_NAME}, so it is not a finished checkpoint of Trimaran; "
            "run the stage that makes it again"
        ) from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise ManifestError(f"{path} holds {type(record).__name__}, expected a JSON object")
    schema = record.get("schema_version")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise ManifestError(
            f"{path} has schema version {schema}, this Trimaran reads up to {SCHEMA_VERSION}; upgrade it"
        )
    try:
        manifest = build_record(Manifest, record)
    except RecordError as error:
        raise ManifestError(f"{path}: {error}") from error
    if verify:
        _verify(Path(directory), manifest)
    return manifest


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Hash every file under ``directory``, then write its manifest, last and atomically.

    Its weights get the permissions of its other files: safetensors 0.8 writes for the owner alone, whatever
    the umask, and a server that runs as another user could not read them.

    Returns:
        The manifest as written, with ``files`` filled.
    """
    directory = Path(directory)
    files = {
        path.relative_to(directory).as_posix(): file_sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST_NAME
    }
    sealed = replace(manifest, files=files)
    text = json.dumps(asdict(sealed), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomically(directory / MANIFEST_NAME, text + "\n")
    mode = (directory / MANIFEST_NAME).stat().st_mode
    for path in directory.rglob("*.safetensors"):
        if path.stat().st_nlink == 1:  # else it is a file of somebody else, too
            path.chmod(mode)
    return sealed


def manifest_sha256(directory: Path) -> str:
    """Return the sha256 of a checkpoint's manifest, the name later stages know it by.

    Raises:
        ManifestError: there is no manifest.
    """
    path = Path(directory) / MANIFEST_NAME
    if not path.is_file():
        raise ManifestError(f"{directory} has no {MANIFEST_NAME}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, remembered while its size and time stay the same."""
    status = path.stat()
    return _file_sha256(str(path.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _file_sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(directory: Path, manifest: Manifest) -> None:
    """Raise ManifestError naming every file that is gone or differs from its hash."""
    wrong = []
    for name, expected in manifest.files.items():
        path = directory / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
            continue
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            wrong.append(f"{name} has sha256 {found[:12]}..., the manifest says {expected[:12]}...")
    if wrong:
        raise ManifestError(
            f"{directory} does not match its manifest: {'; '.join(wrong)}. Make or copy the checkpoint again"
        )
