"""What the near end of an engine and its process say to each other, pickled over a socket pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.engine.config import EngineConfig
from serving.engine.contract import Capacity, Counters, Handle, TokenEvent
from serving.engine.request import GenerationRequest

__all__ = ["Cancel", "Load", "LoadFailed", "Ready", "Stepped", "Submit"]


@dataclass(frozen=True)
class Load:
    """To the process, first: what to load."""

    checkpoint: Path
    config: EngineConfig


@dataclass(frozen=True)
class Ready:
    """From the process: the engine is loaded and warm."""

    capacity: Capacity


@dataclass(frozen=True)
class LoadFailed:
    """From the process: why the engine cannot be loaded."""

    reason: str


@dataclass(frozen=True)
class Submit:
    """To the process: a request under the near end's handle."""

    handle: Handle
    request: GenerationRequest


@dataclass(frozen=True)
class Cancel:
    """To the process: end a request."""

    handle: Handle


@dataclass(frozen=True)
class Stepped:
    """From the process: what a step brought, under the near end's handles."""

    events: list[TokenEvent]
    counters: Counters
