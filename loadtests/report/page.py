"""Puts the page together: numbers into texts, charts, and the template ``page.html``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup

from loadtests.metrics.distribution import Distribution
from loadtests.report.charts import change_chart, latency_charts, load_charts
from loadtests.report.model_config import pbtxt
from loadtests.report.server_charts import requests_in_server, server_charts, server_rows
from loadtests.report.texts import (
    check_rows,
    comparison_rows,
    facts,
    failure_rows,
    load_text,
    metric_rows,
    notes,
    tiles,
    verdict_text,
)
from loadtests.slo import untold

__all__ = ["page_template", "render_report"]

_HERE = Path(__file__).parent


def render_report(
    results: Mapping[str, Any],
    distributions: Mapping[str, Distribution],
    baseline: Mapping[str, Any] | None = None,
) -> str:
    """Return the report as one HTML page that needs no other file and no network.

    Args:
        results: the content of ``results.json``.
        distributions: tag of a request metric -> its samples, for the charts.
        baseline: ``results.json`` of the run to compare with.
    """
    config, model_config = results["config"], results["server"].get("model_config")
    in_server = requests_in_server(results)
    return page_template(_HERE / "page.html").render(
        model=config["model"],
        protocol=config["protocol"],
        url=config["url"],
        load=load_text(config),
        started=results["started"].replace("T", " ").replace("+00:00", " UTC"),
        seconds=f"{results['window']['seconds']:.0f}",
        verdict=results["verdict"],
        summary=verdict_text(results),
        tiles=tiles(results),
        latencies=latency_charts(results, distributions, baseline),
        over_time=[*load_charts(results), *([in_server] if in_server is not None else [])],
        change=change_chart(results),
        comparisons=comparison_rows(results),
        baseline=config["baseline"],
        server_charts=server_charts(results),
        server_rows=server_rows(results),
        server_notes=results["server_metrics"]["notes"],
        scrapes=results["server_metrics"]["scrapes"],
        metrics_urls=results["server_metrics"]["urls"],
        metrics=metric_rows(results),
        checks=check_rows(results),
        failures=failure_rows(results),
        facts=facts(results),
        model_config=None if model_config is None else pbtxt(model_config),
        notes=notes(),
        remarks=untold(results["notes"], results["verdict"]["reasons"]),
    )


@cache
def page_template(file: Path, *shared: Path) -> Template:
    """Return the template in ``file``; what it is given is escaped, unless it is ``Markup``.

    It may extend ``base.html``, which has the style sheet and the script that our pages share.

    Args:
        file: the template.
        shared: folders of what else it includes.
    """
    environment = Environment(
        loader=FileSystemLoader([_HERE, *shared]), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"style": Markup(_text("style.css")), "script": Markup(_text("page.js"))}
    return environment.from_string(file.read_text(encoding="utf-8"))


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
