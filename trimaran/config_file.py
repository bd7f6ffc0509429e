"""YAML run configs: found, read, and checked for unknown keys before anything else looks at them."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from pathlib import Path
from typing import Any

import yaml

from checkpoints.errors import ConfigError

__all__ = ["check_keys", "find_config", "read_config"]

_PACKAGED = Path(__file__).resolve().parent.parent


def find_config(name: str) -> Path:
    """Return the file ``name``; ``recipes/...`` also means the recipes this package carries.

    Raises:
        ConfigError: there is no such file, here or in the package.
    """
    path = Path(name)
    if path.is_file():
        return path
    packaged = _PACKAGED / name
    if path.parts[:1] == ("recipes",) and packaged.is_file():
        return packaged
    if path.is_dir():
        raise ConfigError(f"--config {name}: this is a directory; name a YAML file in it")
    # recipes/accelerate is how to launch, not what to train.
    found = (file for file in (_PACKAGED / "recipes").rglob("*.yaml") if file.parent.name != "accelerate")
    recipes = sorted(str(file.relative_to(_PACKAGED)) for file in found)
    close = difflib.get_close_matches(name, recipes, n=3, cutoff=0.5) or recipes[:6]
    raise ConfigError(f"--config {name}: no such file; packaged recipes: {', '.join(close)}")


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is not YAML (with the line), or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem or error.context}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found a {type(content).__name__}")
    return content


def check_keys(content: dict[str, Any], config_class: type, path: Path, prefix: str = "") -> None:
    """Refuse a key that is no field of ``config_class``, naming the closest ones that are.

    Raises:
        ConfigError: an unknown key, or a section where a single value is expected or the reverse.
    """
    types = typing.get_type_hints(config_class)
    known = [field.name for field in dataclasses.fields(config_class) if field.init]
    for key, value in content.items():
        name = f"{prefix}{key}"
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(close)}?" if close else f"accepted: {', '.join(known)}"
            raise ConfigError(f"{path}: unknown key `{name}`; {hint}")
        if dataclasses.is_dataclass(types[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: `{name}` is a section with keys of its own, found {value!r}")
            check_keys(value, typing.cast(type, types[key]), path, f"{name}.")
