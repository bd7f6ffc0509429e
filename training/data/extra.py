"""Packages that only some ways of preparing data need: the extra ``data``."""

from __future__ import annotations

import importlib
from typing import Any

from checkpoints.errors import ConfigError

__all__ = ["import_extra"]


def import_extra(module: str, purpose: str) -> Any:
    """Import ``module``, which the extra ``data`` brings.

    Args:
        module: dotted name.
        purpose: what it is needed for, as the beginning of a sentence ("reading Parquet").

    Raises:
        ConfigError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != package:
            raise  # it is there, but broken
        raise ConfigError(
            f"{purpose} needs {package}, which is not installed: pip install 'trimaran[data]'"
        ) from error
