"""TensorBoard, when it is asked for."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from checkpoints.errors import ConfigError

__all__ = ["tensorboard_callback"]


def tensorboard_callback(directory: Path, *, purge_step: int | None) -> TrainerCallback:
    """Return a callback that writes event files to ``directory``.

    Args:
        purge_step: a resumed run hides what was written after this step.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard = true, but TensorBoard is not installed: pip install 'trimaran[tensorboard]'"
        ) from error
    writer = SummaryWriter(log_dir=str(directory), purge_step=purge_step)
    return TensorBoardCallback(writer)
