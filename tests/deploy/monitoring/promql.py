"""What the rules and the dashboard ask Prometheus for: expressions and the metrics in them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "DEPLOY",
    "GPU_ONLY",
    "OF_PROMETHEUS",
    "ROOT",
    "Selector",
    "alerts",
    "bound",
    "dashboard_queries",
    "rules",
    "selectors",
    "substitute",
]

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"

OF_PROMETHEUS = {"ALERTS", "up", "prometheus_rule_evaluation_failures_total"}
"""Metrics that Prometheus makes itself."""

GPU_ONLY = {
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_usage",
    "nv_gpu_utilization",
}
"""Triton publishes these on a machine with an NVIDIA GPU only (its guide "Metrics", table of GPU metrics)."""

_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_CLAUSE = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*(\([^)]*\))?")
_SELECTOR = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\w)(?!\s*\()")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@dataclass(frozen=True)
class Selector:
    """A metric's name and its label matchers as ``(label, operator, value)``."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()


def selectors(expression: str) -> list[Selector]:
    """Return the metrics that an expression selects."""
    bare = _CLAUSE.sub(" ", re.sub(r"\[[\w:$]+\]", " ", expression))
    return [
        Selector(name, tuple((key, how, value) for key, how, value in _MATCHER.findall(matchers)))
        for name, matchers in _SELECTOR.findall(bare)
        if name not in _WORDS
    ]


WHOLE = "([.]0)?"


def bound(selector: Selector) -> float:
    """Return the upper edge of the bucket that is selected, in the spelling of Prometheus 2 and of 3."""
    ((operator, value),) = [(how, value) for label, how, value in selector.matchers if label == "le"]
    edge = float(value.removesuffix(WHOLE))
    assert edge.is_integer() == value.endswith(WHOLE) == (operator == "=~"), selector
    return edge


def rules() -> list[dict[str, Any]]:
    """Return every recording and alerting rule."""
    return [
        rule
        for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    """Return the alerting rules."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard_queries() -> list[tuple[str, str]]:
    """Return ``(panel title, expression)`` of every query of the dashboard's JSON."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "trimaran.json").read_text(encoding="utf-8"))
    return [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def substitute(expression: str, window: str = "1m") -> str:
    """Put values in the place of Grafana's variables, as Grafana does."""
    expression = expression.replace("$__rate_interval", window)
    return re.sub(r"\$(model|version|instance)\b", ".+", expression)
