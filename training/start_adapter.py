"""Going on from an adapter: its weights in place of a method's initial ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.adapters import check_base_files
from checkpoints.errors import ConfigError
from checkpoints.lora_targets import targets_as_named
from checkpoints.manifest import Parent, manifest_sha256, read_manifest
from training.config import TrainConfig

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["adapter_parent", "check_adapter", "load_adapter"]

# What may change from one run to the next: it is of training, not of the adapter.
_FREE = {"dropout"}


def check_adapter(config: TrainConfig, source: str) -> None:
    """Refuse an adapter that is not of this run's base, method and settings; cheap, so it comes early.

    Args:
        config: with ``adapter`` set, or nothing is checked.
        source: the base.

    Raises:
        ConfigError: its method or one of its settings is another; the message names it.
        CheckpointError: it cannot be read, its files differ from its manifest, or its base is another.
    """
    if config.adapter is None:
        return
    manifest = read_manifest(config.adapter, verify=True)
    if manifest.kind != "adapter":
        raise ConfigError(
            f"adapter = {config.adapter} is a whole checkpoint; give it as model = {config.adapter}"
        )
    if manifest.method != config.method:
        raise ConfigError(
            f"adapter = {config.adapter} was trained with method = {manifest.method}, this run is method = "
            f"{config.method}; use the same"
        )
    before = manifest.settings.get(config.method, {})
    for name, value in asdict(getattr(config, config.method)).items():
        if name not in _FREE and before.get(name, value) != value:
            raise ConfigError(
                f"{config.method}.{name} = {value}, but adapter = {config.adapter} was trained with "
                f"{before[name]}; set {config.method}.{name} to that"
            )
    check_base_files(config.adapter, source)


def load_adapter(model: PeftModel, directory: Path) -> None:
    """Give the trainable weights of ``model`` the values of the adapter in ``directory``.

    Raises:
        ConfigError: it has other weights, or of other shapes.
    """
    from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    found = load_peft_weights(str(directory), device=str(model.device))
    for name in sorted(wanted.keys() | found.keys()):
        shapes = [tuple(weights[name].shape) if name in weights else "none" for weights in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"adapter = {directory} does not fit this run: {name} is {shapes[0]} there and {shapes[1]} "
                "here; use the settings it was trained with (its trimaran.json has them)"
            )
    with targets_as_named():
        set_peft_model_state_dict(model, found)


def adapter_parent(directory: Path | None) -> Parent | None:
    """Return how a manifest names the adapter that its own went on from."""
    return None if directory is None else Parent(directory.resolve().name, manifest_sha256(directory))


def adapter_inputs(config: TrainConfig) -> dict[str, Any]:
    """Return what a run that was cut off must find unchanged."""
    return {"adapter": None if config.adapter is None else manifest_sha256(config.adapter)}
