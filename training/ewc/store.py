"""``OUTPUT/ewc``: what a later run needs to remember this one.

::

    fisher.safetensors   fisher.NAME and value.NAME of each trained parameter, both float32
    ewc.json             rows and tokens it is of, and the result it belongs to

It is there whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints.atomic import atomic_directory
from checkpoints.errors import CheckpointError
from checkpoints.manifest import file_sha256

__all__ = ["Importance", "importance_sha256", "read_importance", "write_importance"]

FOLDER = "ewc"
_WEIGHTS, _FACTS = "fisher.safetensors", "ewc.json"
_FISHER, _VALUE = "fisher.", "value."


@dataclass(frozen=True)
class Importance:
    """By the parameter's name, float32, in its shape."""

    fisher: dict[str, Tensor]
    """How much the loss depends on it, see :mod:`training.ewc.fisher`; of several runs the sum."""
    values: dict[str, Tensor]
    """Where it was at the end of the run."""


def write_importance(target: Path, importance: Importance, facts: Mapping[str, Any]) -> None:
    """Write both files.

    Args:
        target: the directory to make, or replace.
        facts: JSON values, to be read by people.

    Raises:
        CheckpointError: the disk is full; nothing half-written is left.
    """
    tensors = {f"{_FISHER}{name}": tensor for name, tensor in importance.fisher.items()}
    tensors |= {f"{_VALUE}{name}": tensor for name, tensor in importance.values.items()}
    with atomic_directory(target, replace=True) as directory:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, directory / _WEIGHTS)
        text = json.dumps(
            {**facts, "sha256": file_sha256(directory / _WEIGHTS)}, indent=2, ensure_ascii=False
        )
        (directory / _FACTS).write_text(text + "\n", encoding="utf-8")


def read_importance(run: Path) -> Importance:
    """Read what the run in ``run`` saved.

    Raises:
        CheckpointError: it saved nothing, or the file is damaged.
    """
    importance_sha256(run)
    path = run / FOLDER / _WEIGHTS
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return Importance(_named(tensors, _FISHER), _named(tensors, _VALUE))


def importance_sha256(run: Path) -> str:
    """Return the sha256 of what the run in ``run`` saved.

    Raises:
        CheckpointError: it saved nothing, or the file is not the one that was written.
    """
    path, facts = run / FOLDER / _WEIGHTS, run / FOLDER / _FACTS
    if not (path.is_file() and facts.is_file()):
        raise CheckpointError(
            f"ewc.from_run = {run} has no {FOLDER}/{_WEIGHTS}; name the OUTPUT of a run trained with "
            "ewc.save = true"
        )
    found = file_sha256(path)
    if json.loads(facts.read_text(encoding="utf-8")).get("sha256") != found:
        raise CheckpointError(f"{path} is not the file that {facts.name} was written for; copy both again")
    return found


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
