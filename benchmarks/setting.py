"""What all peers of one run have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Setting"]


@dataclass(frozen=True)
class Setting:
    """Where things are, and the limits every peer gets."""

    checkpoint: Path
    """The checkpoint: the same weights for all."""

    checkpoint_hash: str
    """Of its manifest, which names the hash of every file."""

    cache: Path
    """Kept between runs: environments, builds, converted models."""

    repository: Path
    """Triton model repository of this run, made fresh from the code as it is."""

    logs: Path
    """What peers print."""

    precision: str
    """``fp32`` or ``bf16``: what peers without quantization compute in."""

    threads: int
    """Math threads of each engine."""

    slots: int = 32
    """Requests at once."""

    max_context: int = 512
    """Tokens of one request, prompt and output."""

    build_timeout: float = 3600.0
    """Seconds for an installation or a build."""

    start_timeout: float = 600.0
    """Seconds for a start."""
