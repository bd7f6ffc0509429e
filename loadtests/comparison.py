"""One number of this run beside the same number of the baseline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from loadtests.durations import format_duration

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison:
    """A change relative to the baseline, with the interval in which chance would put it."""

    name: str
    """Such as ``ttft p95``."""
    unit: Literal["ns", "tokens/s"]
    """Nanoseconds are better when they are fewer, tokens per second when they are more."""
    baseline: float
    """What the baseline measured."""
    measured: float
    """What this run measured."""
    low: float
    """Lower end of the 95 % bootstrap interval of the change; -0.1 is 10 % less."""
    high: float
    """Upper end."""
    limit: float
    """How much worse is still good."""

    @property
    def change(self) -> float:
        """``measured / baseline - 1``."""
        return self.measured / self.baseline - 1

    @property
    def passed(self) -> bool:
        """Whether the change may be within the limit: it fails when the whole interval is worse."""
        return self.low <= self.limit if self.unit == "ns" else self.high >= -self.limit

    def describe(self) -> str:
        """Return one line, such as ``ttft p95 812 ms is +38 % (+31 to +45) on the baseline's 588 ms``."""
        word = "" if self.passed else ", worse than"
        sign = "+" if self.unit == "ns" else "-"
        bound = f" {sign}{100 * self.limit:.0f} % (--max-regression)" if word else ""
        return (
            f"{self.name} {self.format(self.measured)} is {100 * self.change:+.1f} % "
            f"({100 * self.low:+.1f} to {100 * self.high:+.1f}) on the baseline's "
            f"{self.format(self.baseline)}{word}{bound}"
        )

    def format(self, value: float) -> str:
        """Return one of the two values for people."""
        return format_duration(value) if self.unit == "ns" else f"{value:.1f} tokens/s"

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON takes them."""
        return {**asdict(self), "change": self.change, "passed": self.passed}
