"""All metrics there are: every concrete class in this folder's files."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

import loadtests.metrics
from loadtests.metrics.metric import RequestMetric, RunMetric

__all__ = ["request_metrics", "run_metrics"]

# The order in tables; a metric that is not named here comes after these.
_ORDER = (
    "ttft", "itl", "tpot", "e2e", "lateness", "queueing_delay", "output_tokens", "prompt_tokens",
)  # fmt: skip


@cache
def _load_files() -> None:
    for module in pkgutil.iter_modules(loadtests.metrics.__path__):
        importlib.import_module(f"loadtests.metrics.{module.name}")


def request_metrics() -> list[RequestMetric]:
    """Return one instance of every request metric."""
    _load_files()
    found = [metric() for metric in RequestMetric.__subclasses__()]
    return sorted(found, key=lambda m: (_ORDER.index(m.tag) if m.tag in _ORDER else len(_ORDER), m.tag))


def run_metrics() -> list[type[RunMetric]]:
    """Return every run metric; it is instantiated for a run."""
    _load_files()
    return sorted(_concrete(RunMetric), key=lambda metric: metric.tag)


def _concrete(metric: Any) -> list[type[RunMetric]]:
    below = [found for subclass in metric.__subclasses__() for found in _concrete(subclass)]
    return below if inspect.isabstract(metric) else [metric, *below]
