"""The settings on their way to the child process and into results.json."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from loadtests.config import LoadTestConfig

__all__ = ["config_from_json", "config_to_json"]


def config_to_json(config: LoadTestConfig) -> dict[str, Any]:
    """Return the settings as JSON takes them; paths become absolute."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {
        name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()
    }


def config_from_json(values: dict[str, Any]) -> LoadTestConfig:
    """Undo ``config_to_json``."""
    names = ("prompts", "tokenizer", "trace", "output", "baseline", "api_key_file", "ca_file")
    paths = {name: Path(values[name]) for name in names if values.get(name) is not None}
    return LoadTestConfig(**{**values, **paths})
