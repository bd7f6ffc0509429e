"""PyTorch ``.pt``/``.bin`` state dicts, read without running what a pickle may carry."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from checkpoints.errors import CheckpointError

__all__ = ["read_state_dict"]

# What training scripts wrap the weights in.
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state_dict(files: tuple[Path, ...]) -> dict[str, torch.Tensor]:
    """Read and join the tensors of one or several (sharded) state dicts, on the CPU.

    Raises:
        CheckpointError: a file is broken, needs arbitrary code to unpickle, or holds no state dict.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in files:
        tensors.update(_unwrap(_load(path), path))
    return tensors


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                # The format from before torch 1.6 cannot be mapped.
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: its pickle needs more than tensors, and loading it could run code "
            f"({_reason(error)}). Save model.state_dict() again, best as safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a PyTorch state dict: {error}") from error


def _reason(error: Exception) -> str:
    """Return the line of torch's long message that says what was found in the pickle."""
    for line in str(error).splitlines():
        match = re.search(r"(GLOBAL [\w.]+|Unsupported (?:operand|class).*)", line)
        if match:
            return match[1].rstrip(".")
    return "it asks for something weights_only=True does not allow"


def _unwrap(value: Any, path: Path) -> dict[str, torch.Tensor]:
    for key in _WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
            break
    if not isinstance(value, dict) or not value:
        raise CheckpointError(f"{path} holds {type(value).__name__}, expected a state dict of tensors")
    wrong = [str(key) for key, item in value.items() if not isinstance(item, torch.Tensor)]
    if wrong:
        raise CheckpointError(f"{path}: entry {wrong[0]!r} is no tensor, so this is no state dict")
    # DistributedDataParallel puts this in front of every name.
    if all(name.startswith("module.") for name in value):
        return {name.removeprefix("module."): item for name, item in value.items()}
    return dict(value)
