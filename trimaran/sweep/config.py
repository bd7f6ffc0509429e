"""Settings of a sweep over serving configurations: what is tried, and the load as of ``loadtest sweep``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from checkpoints.errors import ConfigError
from loadtests.sweep.config import SweepConfig
from trimaran.sweep.candidates import Candidate, make_candidates

__all__ = ["ServingSweepConfig"]


@dataclass
class ServingSweepConfig(SweepConfig):
    """Export, serve and load-test one checkpoint in many configurations, and say which one to use.

    Each configuration is exported to a repository of its own, served on free ports of 127.0.0.1, measured as
    `trimaran loadtest sweep` does it, and stopped. One that cannot be exported or served is reported and
    skipped. The configuration with the most output tokens per second among those that meet the limits is
    written to best.yaml, for `trimaran export --config`. The same command again continues a sweep that was
    cut (name the --output). Exit code 1 says that no configuration meets the limits.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("checkpoint",)

    checkpoint: Path = field(kw_only=True)
    """Checkpoint to serve, as of `trimaran export`."""
    export: dict[str, Any] | None = None
    """Settings of `trimaran export` that all configurations share."""
    grid: dict[str, list[Any]] | None = None
    """Lists of values by setting of `trimaran export`: every combination is a configuration."""
    configurations: list[dict[str, Any]] | None = None
    """Configurations one by one, each a mapping of settings of `trimaran export`; after those of --grid."""
    over: Literal["rate", "concurrency"] = "concurrency"
    """Load of the points: concurrency, the users of a closed loop, or rate, the requests per second of an
    open loop. --loads names the points; without it each configuration's highest good load is searched."""
    start_timeout: float = 600.0
    """Seconds until a configuration must be ready."""
    keep_repositories: bool = False
    """Keep each configuration's model repository. By default it is removed when it is measured."""
    output: Path | None = None
    """Directory for sweep.json, sweep.html, best.yaml and the results of each configuration. Default:
    loadtest-results/serving-<time>. One that holds the same sweep, cut, is continued."""

    # Known only when a configuration is served.
    url: str = field(default="http://127.0.0.1:8000", init=False)
    model: str = field(default="llm", init=False)
    api_key_file: Path | None = field(default=None, init=False)
    ca_file: Path | None = field(default=None, init=False)
    metrics_url: str = field(default="auto", init=False)

    def __post_init__(self) -> None:
        if self.protocol not in ("generate_stream", "generate", "grpc", "infer"):
            raise ConfigError(
                f"protocol: {self.protocol} is not spoken by Triton; accepted: generate_stream, generate, "
                "grpc or infer"
            )
        if not 0 < self.start_timeout < float("inf"):
            raise ConfigError(f"start_timeout: {self.start_timeout} is not above 0")
        if self.protocol == "grpc":
            self.url = "grpc://127.0.0.1:8001"
        self.candidates()
        super().__post_init__()

    def candidates(self) -> list[Candidate]:
        """Return the configurations to try, in order.

        Raises:
            ConfigError: a setting is unknown or out of range, or there is no configuration.
        """
        return make_candidates(self.checkpoint, self.export or {}, self.grid or {}, self.configurations or [])

    def endpoint(
        self, model: str, output: Path, url: str | None = None, metrics_url: str | None = None
    ) -> SweepConfig:
        """Return the sweep over the loads of one endpoint.

        Args:
            model: its name in Triton.
            output: directory of the results.
            url, metrics_url: where it is, once it is served.
        """
        values = {one.name: getattr(self, one.name) for one in fields(SweepConfig) if one.init}
        values |= {
            "model": f"{model}_infer" if self.protocol == "infer" else model,
            "output": output,
            "overwrite": False,
            "url": url or self.url,
            "metrics_url": metrics_url or self.metrics_url,
        }
        return SweepConfig(**values)
