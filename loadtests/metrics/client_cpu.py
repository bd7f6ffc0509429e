"""Client CPU: what making the load cost."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClientCpu"]


@dataclass(frozen=True)
class ClientCpu:
    """``cpu_seconds / seconds`` cores, and ``1e6 * cpu_seconds / output tokens`` ms per 1,000 tokens.

    Processor time, user and system, of all processes that made the load, from the first request to the last
    answer, warm-up and what was cut included; so are the tokens. Writing the report comes after it. Undefined
    for a load of no length, or without tokens.
    """

    header = "Client CPU"

    cpu_seconds: float
    """Of all processes."""
    seconds: float
    """From the beginning of the load to its end."""
    output_tokens: int
    """Received in that time."""

    @property
    def cores(self) -> float | None:
        """Cores kept busy on average."""
        return self.cpu_seconds / self.seconds if self.seconds else None

    @property
    def ms_per_1k_tokens(self) -> float | None:
        """Milliseconds per 1,000 output tokens."""
        return 1e6 * self.cpu_seconds / self.output_tokens if self.output_tokens else None

    def as_dict(self) -> dict[str, float | None]:
        """Return the numbers as ``load_generator`` in results.json has them."""
        return {
            "cpu_seconds": round(self.cpu_seconds, 3),
            "cpu_cores": None if self.cores is None else round(self.cores, 3),
            "cpu_ms_per_1k_tokens": None
            if self.ms_per_1k_tokens is None
            else round(self.ms_per_1k_tokens, 3),
        }
