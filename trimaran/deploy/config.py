"""The settings of ``trimaran deploy``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from checkpoints.errors import ConfigError

__all__ = ["PORTS", "DeployConfig"]

PORTS = ("http_port", "grpc_port", "metrics_port", "prometheus_port", "grafana_port", "locust_port")
_COMPOSE_ONLY = (*PORTS, "build_context", "up", "down")


@dataclass
class DeployConfig:
    """Write what docker compose or the Helm chart needs to serve a model repository, sized for its model.

    Raises:
        ConfigError: a field is missing, out of range or clashes with another; the message names it.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("target",)

    target: Literal["compose", "helm"]
    """``compose`` writes .env beside the compose files; ``helm`` writes values.yaml beside the chart."""

    repository: Path | None = None
    """Model repository, as ``export`` writes it. Needed, except for ``--down``."""

    model: str = "llm"
    """Model that health checks ask for and that memory is counted for."""

    output: Path | None = None
    """Folder to write; by default deploy-compose or deploy-helm."""

    overwrite: bool = False
    """Replace the output folder, if an earlier run of this command wrote it."""

    image: str | None = None
    """Serving image to take as it is, such as registry.example.com/trimaran/serve-cpu:0.1.0; by default the
    one that the Dockerfile builds."""

    build_context: Path | None = None
    """Clone to build the images from (compose); by default the one this command runs from."""

    versions: int | None = None
    """Versions of the model that memory is counted for. ``trimaran load`` swaps without failing a request
    and holds two for a while. By default 2 with compose; 1 with helm, where new pods replace old ones."""

    cpus: int | None = None
    """CPU limit; by default the threads that the version was exported for, or 2, for each instance."""

    gpus: int | None = None
    """GPUs of the server; by default what the model's config.pbtxt asks for."""

    start_seconds: int = 600
    """Longest time that loading the model may take."""

    longest_request: int = 300
    """Seconds of the longest request you allow: a stopping server lets requests in flight run this long."""

    http_port: int = 8000
    """Port on 127.0.0.1 for HTTP (compose; as are the other ports)."""

    grpc_port: int = 8001
    """Port for gRPC."""

    metrics_port: int = 8002
    """Port for Triton's metrics."""

    prometheus_port: int = 9090
    """Port for Prometheus."""

    grafana_port: int = 3000
    """Port for Grafana."""

    locust_port: int = 8089
    """Port for Locust's web page, in the profile ``locust``."""

    up: bool = False
    """Also build and start it, and wait until the model is healthy (compose)."""

    down: bool = False
    """Only stop what an earlier run of this command started, and remove its containers (compose)."""

    def __post_init__(self) -> None:
        if self.target != "compose":
            self._check_compose_only()
        if self.up and self.down:
            raise ConfigError("up and down are both true; give one of them")
        if self.repository is None and not self.down:
            raise ConfigError(
                "repository is missing; accepted: a model repository that `trimaran export` wrote"
            )
        for field in ("versions", "cpus", "start_seconds", "longest_request"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError(f"{field} is {value}; accepted: at least 1")
        if self.gpus is not None and self.gpus < 0:
            raise ConfigError(f"gpus is {self.gpus}; accepted: at least 0")
        self._check_ports()

    def _check_compose_only(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for field in _COMPOSE_ONLY:
            value = getattr(self, field)
            if value != defaults[field]:
                shown = str(value).lower() if isinstance(value, bool) else value
                raise ConfigError(
                    f"{field} is {shown}, but target is {self.target!r}; it is for compose, leave it out"
                )

    def _check_ports(self) -> None:
        seen: dict[int, str] = {}
        for field in PORTS:
            port = getattr(self, field)
            if not 1 <= port <= 65535:
                raise ConfigError(f"{field} is {port}; accepted: 1 to 65535")
            if port in seen:
                raise ConfigError(f"{seen[port]} and {field} are both {port}; they must differ")
            seen[port] = field

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return self.output if self.output is not None else Path(f"deploy-{self.target}")
