"""``trimaran export``: a checkpoint becomes the next version of a model in a Triton model repository."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from checkpoints.atomic import atomic_directory
from checkpoints.errors import CheckpointError, ExportError
from checkpoints.manifest import Manifest, read_manifest
from serving.config import ExportConfig
from serving.engine.config import ENGINE_CONFIG_NAME
from serving.engine_choice import choose_engine
from serving.repository import find_versions
from serving.triton_config import differences, infer_model_config, model_config, parse, render
from serving.version_adapter import as_served, find_base, is_served_unmerged, write_adapter
from serving.version_checkpoint import write_checkpoint

__all__ = ["export"]

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.pbtxt"
CHECKPOINT_FOLDER = "checkpoint"


def export(config: ExportConfig) -> Path:
    """Write ``config.checkpoint`` as a version of ``config.name`` and return the version's directory.

    The version appears whole or not at all; a version that exists is never touched. Files that are the
    checkpoint's own are hard links, or copies on another file system.

    Raises:
        ExportError: the version exists, or the model's ``config.pbtxt`` would have to change.
        ManifestError: the checkpoint has no manifest or does not match it.
        UnsupportedCheckpoint: the engine cannot serve this model.
    """
    checkpoint = Path(config.checkpoint)
    if not checkpoint.is_dir():
        raise ExportError(f"checkpoint {checkpoint} is no directory")
    manifest = read_manifest(checkpoint, verify=True)
    _check_exportable(config, manifest)
    base = find_base(config, manifest) if is_served_unmerged(manifest) else None
    if base is not None:
        manifest = as_served(manifest)
    described = checkpoint if base is None or base.directory is None else base.directory
    engine = choose_engine(config, manifest, _read_model_config(described, config.trust_remote_code))
    engine = replace(engine, trimaran_version=_own_version())

    repository = Path(config.repository).absolute()
    model = repository / config.name
    number = _choose_version(model, config.version)
    front = repository / f"{config.name}_infer"
    config_text = _compatible_config(model, model_config(config))
    front_text = _compatible_config(front, infer_model_config(config)) if config.infer_model else ""

    with _new_version(model, number, config_text) as folder:
        shutil.copyfile(_model_source("llm"), folder / "model.py")
        engine.write(folder / ENGINE_CONFIG_NAME)
        (folder / CHECKPOINT_FOLDER).mkdir()
        if base is not None:
            write_adapter(checkpoint, manifest, base, folder / CHECKPOINT_FOLDER)
        else:
            write_checkpoint(checkpoint, manifest, folder / CHECKPOINT_FOLDER, engine, config)
        # The front appears before the version, so that all that needs it finds it.
        if config.infer_model:
            _write_front(front, front_text)
    logger.info(
        "exported %s as %s version %d: engine %s, %s weights, %d slots of %d tokens",
        checkpoint,
        config.name,
        number,
        engine.engine,
        engine.weights,
        engine.slots,
        engine.max_context,
    )
    return model / str(number)


def _check_exportable(config: ExportConfig, manifest: Manifest) -> None:
    if manifest.kind == "adapter" and not is_served_unmerged(manifest):
        raise ExportError(
            f"{config.checkpoint} is an adapter, which needs its base model; merge it first: "
            f"trimaran merge {config.checkpoint} --output MERGED, then export MERGED"
        )
    if config.base is not None and manifest.kind != "adapter":
        raise ExportError(
            f"base = {config.base} is for an adapter; {config.checkpoint} is a whole checkpoint"
        )
    if manifest.remote_code and not config.trust_remote_code:
        raise ExportError(
            f"{config.checkpoint} runs Python code of its own when it is loaded; "
            "read that code, then allow it with --trust-remote-code"
        )


def _read_model_config(checkpoint: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            checkpoint, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}/config.json cannot be used: {error}") from error


def _choose_version(model: Path, wanted: int | None) -> int:
    existing = find_versions(model)
    if wanted is None:
        return existing[-1] + 1 if existing else 1
    if wanted in existing:
        raise ExportError(
            f"{model / str(wanted)} exists and a version is never overwritten; "
            f"leave --version out to write version {existing[-1] + 1}"
        )
    if existing and wanted < existing[-1]:
        raise ExportError(
            f"version {wanted} would not be served: {model} holds version {existing[-1]} and Triton loads "
            f"the latest; leave --version out to write version {existing[-1] + 1}"
        )
    return wanted


def _compatible_config(model: Path, wanted: Any) -> str:
    """Return the text for a new ``config.pbtxt``; raise ExportError where the existing one would change."""
    path = model / CONFIG_NAME
    if not path.exists():
        return render(wanted)
    changed = differences(parse(path.read_text(encoding="utf-8"), str(path)), wanted)
    if changed:
        raise ExportError(
            f"{path} is shared by all versions and this export would change it: {'; '.join(changed)}. "
            "Export with the settings it has, or as another model (--name)"
        )
    return path.read_text(encoding="utf-8")


@contextmanager
def _new_version(model: Path, number: int, config_text: str) -> Iterator[Path]:
    """Yield a hidden folder that becomes version ``number``; a new model appears whole, with its config."""
    with _as_export_error():
        if (model / CONFIG_NAME).exists():
            with atomic_directory(model / str(number)) as folder:
                yield folder
            return
        if model.exists():
            raise ExportError(f"{model} exists without {CONFIG_NAME}; remove it or choose another --name")
        with atomic_directory(model) as whole:
            (whole / CONFIG_NAME).write_text(config_text, encoding="utf-8")
            folder = whole / str(number)
            folder.mkdir()
            yield folder


def _write_front(front: Path, config_text: str) -> None:
    """Write ``NAME_infer``: once, and again as a next version only if our ``model.py`` has changed."""
    source = _model_source("llm_infer")
    existing = find_versions(front)
    if existing and (front / str(existing[-1]) / "model.py").read_bytes() == source.read_bytes():
        return
    number = existing[-1] + 1 if existing else 1
    with _new_version(front, number, config_text) as folder:
        shutil.copyfile(source, folder / "model.py")


@contextmanager
def _as_export_error() -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise ExportError(str(error)) from error


def _model_source(name: str) -> Path:
    """Return the ``model.py`` that ships in the package ``model_repository``."""
    spec = importlib.util.find_spec("model_repository")
    if spec is None or not spec.submodule_search_locations:
        raise ExportError("the package model_repository is not installed; install trimaran again")
    return Path(spec.submodule_search_locations[0]) / name / "1" / "model.py"


def _own_version() -> str:
    try:
        return version("trimaran")
    except PackageNotFoundError:
        return "unknown"
