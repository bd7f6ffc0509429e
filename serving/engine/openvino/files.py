"""Where the openvino engine's model lies inside an exported checkpoint."""

from __future__ import annotations

from pathlib import Path

from checkpoints.errors import ServingError

__all__ = ["MODEL_NAME", "find_model_folder", "model_folder"]

MODEL_NAME = "openvino_model.xml"
"""The graph; its weights are beside it in ``openvino_model.bin``."""


def model_folder(checkpoint: Path) -> Path:
    """Return the folder of the model files: one of their own, where GenAI finds no other config to read."""
    return checkpoint / "openvino"


def find_model_folder(checkpoint: Path) -> Path:
    """Return ``model_folder`` of an exported version.

    Raises:
        ServingError: there is no model in it.
    """
    folder = model_folder(checkpoint)
    if not (folder / MODEL_NAME).is_file():
        raise ServingError(f"{folder / MODEL_NAME} is missing; export the checkpoint again")
    return folder
