"""Puts the page together: numbers into texts, charts, and the template ``page.html``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template
from markupsafe import Markup

from loadtests.metrics.distribution import Distribution
from loadtests.report.charts import charts
from loadtests.report.texts import (
    check_rows,
    comparison_rows,
    facts,
    failure_rows,
    load_text,
    metric_rows,
    notes,
    tiles,
)

__all__ = ["render_report"]

_HERE = Path(__file__).parent


def render_report(results: Mapping[str, Any], distributions: Mapping[str, Distribution]) -> str:
    """Return the report as one HTML page that needs no other file and no network.

    Args:
        results: the content of ``results.json``.
        distributions: tag of a request metric -> its samples, for the charts.
    """
    config = results["config"]
    return _template().render(
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        model=config["model"],
        protocol=config["protocol"],
        url=config["url"],
        load=load_text(config),
        started=results["started"].replace("T", " ").replace("+00:00", " UTC"),
        seconds=f"{results['window']['seconds']:.0f}",
        verdict=results["verdict"],
        tiles=tiles(results),
        charts=charts(results, distributions),
        metrics=metric_rows(results),
        checks=check_rows(results),
        comparisons=comparison_rows(results),
        baseline=config["baseline"],
        failures=failure_rows(results),
        facts=facts(results),
        notes=notes(),
        remarks=results["notes"],
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
