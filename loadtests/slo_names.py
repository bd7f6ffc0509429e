"""Limits by the names that people give them: ``ttft_p95: 500ms``, ``failure_rate: 0.1%``, ``goodput: 95%``.

A mapping in YAML, or ``ttft_p95=500ms,goodput=95%`` on a command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from loadtests.durations import parse_duration
from loadtests.errors import ConfigError
from loadtests.shares import parse_share

__all__ = ["latency_slos", "objectives_of", "read_slo", "settings_of"]

_METRICS = ("ttft", "itl", "tpot", "e2e")
_PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999"}
"""As people write them -> as ``Summary`` has them."""
_LATENCIES = {
    f"{metric}_{written}": (metric, statistic)
    for metric in _METRICS
    for written, statistic in _PERCENTILES.items()
}
_SHARES = ("failure_rate", "goodput")
_ONE_PER_REQUEST = ("ttft", "tpot", "e2e")
_TIMES = f"{', '.join(_PERCENTILES)} of {', '.join(_METRICS)}, such as ttft_p95"
_ACCEPTED = f"accepted: {', '.join(_SHARES)}, and {_TIMES}"


def read_slo(slo: Mapping[str, float | str] | str | None) -> dict[str, float | str]:
    """Return the limits by name; shares from 0 to 1, times as they were written.

    Raises:
        ConfigError: a name is unknown or there twice, or a value is no share or time.
    """
    found: dict[str, float | str] = {}
    for written, value in _pairs(slo):
        name = written.replace("p999", "p99.9")
        if name in found:
            raise ConfigError(f"slo: {name} is there twice; leave one out")
        if name in _SHARES:
            found[name] = parse_share(value, f"slo: {name}")
        elif name in _LATENCIES:
            parse_duration(str(value), f"slo: {name}")
            found[name] = str(value)
        else:
            raise ConfigError(f"slo: {written!r} is unknown; {_hint(written)}{_ACCEPTED}")
    return found


def latency_slos(slo: Mapping[str, float | str] | str | None) -> dict[tuple[str, str], int]:
    """Return the limits on times: (metric tag, statistic) -> nanoseconds."""
    return {
        _LATENCIES[name]: parse_duration(str(value), f"slo: {name}")
        for name, value in read_slo(slo).items()
        if name in _LATENCIES
    }


def objectives_of(slo: Mapping[str, float | str] | str | None) -> dict[str, int]:
    """Return what each request should keep where the goodput is limited: metric tag -> nanoseconds.

    It is the limit on the metric itself, the longest of them. A gap between tokens is no objective here: of a
    hundred gaps one may be longer than ``itl_p99``, so most answers of a good server have such a gap.
    """
    found: dict[str, int] = {}
    for (metric, _), limit in latency_slos(slo).items():
        if metric in _ONE_PER_REQUEST:
            found[metric] = max(limit, found.get(metric, 0))
    return found


def settings_of(slo: Mapping[str, float | str] | str | None) -> dict[str, str]:
    """Return how each limit was written, by the name of its check: ``ttft p95`` -> ``slo: ttft_p95``."""
    return {
        " ".join(_LATENCIES[name]) if name in _LATENCIES else name.replace("_", " "): f"slo: {name}"
        for name in read_slo(slo)
    }


def _pairs(slo: Mapping[str, float | str] | str | None) -> list[tuple[str, float | str]]:
    if slo is None:
        return []
    if not isinstance(slo, str):
        return [(str(name), value) for name, value in slo.items()]
    pairs: list[tuple[str, float | str]] = []
    for part in slo.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(
                f"slo: {part.strip()!r} is no limit; write NAME=VALUE with commas between them, such as "
                f"ttft_p95=500ms,failure_rate=0.1%; {_ACCEPTED}"
            )
        pairs.append((name, value))
    return pairs


def _hint(name: str) -> str:
    """Return the closest name, also of ``max_ttft_p95`` and ``ttft-p95``."""
    plain = name.replace("-", "_").removeprefix("max_").removeprefix("min_")
    close = difflib.get_close_matches(plain, [*_SHARES, *_LATENCIES], n=1, cutoff=0.6)
    return f"did you mean {close[0]}? " if close else ""
