"""The configurations of a sweep: every one is checked before the first is exported."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from checkpoints.errors import ConfigError
from serving.config import ExportConfig
from trimaran.command_fields import walk_fields

__all__ = ["Candidate", "make_candidates"]

_NOT_TRIED = ("checkpoint", "version")
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Candidate:
    """One serving configuration."""

    label: str
    """The settings in which it differs, for people."""
    settings: Mapping[str, Any]
    """Settings of ``trimaran export``, as given, without the checkpoint."""
    export: ExportConfig
    """The same, checked; its repository is a placeholder."""

    def directory(self, checkpoint_sha256: str) -> str:
        """Return its directory's name: one for the same settings and weights, whatever else is tried.

        Args:
            checkpoint_sha256: of the checkpoint's manifest.
        """
        content = json.dumps([checkpoint_sha256, dict(self.settings)], sort_keys=True, default=str)
        digest = hashlib.sha256(content.encode())
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.label).strip("-")[:_LONGEST_NAME]
        return f"{name}-{digest.hexdigest()[:8]}"

    def into(self, repository: Path) -> ExportConfig:
        """Return the export into ``repository``."""
        return replace(self.export, repository=repository)


def make_candidates(
    checkpoint: Path,
    shared: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    configurations: Sequence[Mapping[str, Any]],
) -> list[Candidate]:
    """Return every combination of ``grid``, then ``configurations``, each on top of ``shared``.

    Raises:
        ConfigError: a setting is unknown or malformed, two configurations are equal, or there is none.
    """
    if not grid and not configurations:
        raise ConfigError(
            "grid and configurations are both empty: nothing to try; give a grid, such as {slots: [8, 16]}"
        )
    for name, tried in grid.items():
        if not tried:
            raise ConfigError(f"grid.{name}: is empty; give one value or more")
    combinations = itertools.product(*grid.values()) if grid else ()
    own: list[dict[str, Any]] = [dict(zip(grid, chosen, strict=True)) for chosen in combinations]
    places = ["grid"] * len(own) + [f"configurations[{number}]" for number in range(len(configurations))]
    own += [dict(one) for one in configurations]
    found: dict[str, Candidate] = {}
    for place, values in zip(places, own, strict=True):
        if "repository" in values:
            raise ConfigError(f"{place}.repository: it is one for all; name it under `export`, for best.yaml")
        settings = {**shared, **values}
        label = ", ".join(f"{name}={_show(value)}" for name, value in values.items()) or "as exported"
        export = _checked(checkpoint, settings, place)
        key = json.dumps(settings, sort_keys=True, default=str)
        if key in found:
            raise ConfigError(f"{place}: {label} is there twice, as {found[key].label} before")
        found[key] = Candidate(label, settings, export)
    return list(found.values())


def _checked(checkpoint: Path, settings: Mapping[str, Any], place: str) -> ExportConfig:
    """Return the export of these settings; types are checked as on the command line of ``export``."""
    known = {field.name: field for field in walk_fields(ExportConfig) if field.name not in _NOT_TRIED}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(close)}?" if close else f"accepted: {', '.join(known)}"
            raise ConfigError(f"{place}: `{name}` is no setting of trimaran export to try; {hint}")
        field = known[name]
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(field.option, type=field.type)
        try:
            values[name] = parser.parse_object({name: value})[name]
        except ArgumentError as error:
            raise ConfigError(f"{place}: {name}: expected {field.accepts}, got {value!r}") from error
    try:
        return ExportConfig(**{"repository": Path("models"), **values, "checkpoint": checkpoint})
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _show(value: Any) -> str:
    if value is None:
        return "default"
    return str(value).lower() if isinstance(value, bool) else str(value)
