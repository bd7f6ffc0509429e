"""The settings of ``trimaran deploy``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from checkpoints.errors import ConfigError

__all__ = ["DeployConfig"]


@dataclass
class DeployConfig:
    """Write what docker compose or the Helm chart needs to serve a model repository, sized for its model.

    Raises:
        ConfigError: a field is out of range or clashes with another; the message names it.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("target",)

    target: Literal["compose", "helm"]
    """``compose`` writes .env beside the compose files; ``helm`` writes values.yaml beside the chart."""

    repository: Path
    """Model repository, as ``export`` writes it."""

    model: str = "llm"
    """Model that health checks ask for and that memory is counted for."""

    output: Path | None = None
    """Folder to create; by default deploy-compose or deploy-helm."""

    overwrite: bool = False
    """Replace the output folder if it exists."""

    longest_request: int = 300
    """Seconds of the longest request you allow: a stopping server lets requests in flight run this long."""

    up: bool = False
    """compose only: also start it, and wait until the model is healthy."""

    image: str | None = None
    """Serving image; by default the one that the Dockerfile builds."""

    def __post_init__(self) -> None:
        if self.longest_request < 1:
            raise ConfigError(f"longest_request is {self.longest_request}; accepted: at least 1")
        if self.up and self.target != "compose":
            raise ConfigError(f"up is true, but target is {self.target!r}; only compose can be started here")

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return self.output if self.output is not None else Path(f"deploy-{self.target}")
