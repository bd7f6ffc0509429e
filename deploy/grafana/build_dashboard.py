"""Write ``dashboards/trimaran.json``, the Grafana dashboard: ``python deploy/grafana/build_dashboard.py``.

What it shows is in ``panels.py``. Change that, run this, commit both; a test holds the JSON to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from panel import Panel
from panels import ROWS

OUTPUT = Path(__file__).parent / "dashboards" / "trimaran.json"

WIDTH = 24
"""Columns of Grafana's grid."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variable(name: str, query: str) -> dict[str, Any]:
    """Return a template variable that takes its values from a label; all of them by default."""
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "sort": 1,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def panel_json(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """Return Grafana's form of one panel."""
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if "budget" in panel.title.lower():
        del defaults["min"]  # an overspent budget is negative
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    elif panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": "none"}
    elif panel.kind == "heatmap":
        options = {"calculate": False, "color": {"mode": "scheme", "scheme": "Blues"}, "cellGap": 1}
    return {
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "type": panel.kind,
        "datasource": DATASOURCE,
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "datasource": DATASOURCE,
                "refId": chr(ord("A") + index),
                "expr": query.expr,
                "legendFormat": query.legend,
                "format": "heatmap" if panel.kind == "heatmap" else "time_series",
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard, its rows laid out from left to right and top to bottom."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        panels.append({"id": len(panels) + 1, "title": title, "type": "row", "gridPos": place, "panels": []})
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + panel.height
            panels.append(panel_json(panel, len(panels) + 1, x, y))
            x += panel.width
        y += row[-1].height
    selected = 'trimaran_slots{model=~"$model"}'
    return {
        "uid": "trimaran-serving",
        "title": "Trimaran serving",
        "description": "Made by deploy/grafana/build_dashboard.py. Metrics: docs/monitoring.md.",
        "tags": ["trimaran", "llm", "triton"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                variable("model", "label_values(trimaran_slots, model)"),
                variable("version", f"label_values({selected}, version)"),
                variable("instance", f"label_values({selected}, instance)"),
            ]
        },
        "panels": panels,
    }


def render() -> str:
    """Return the text of the JSON file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(render(), encoding="utf-8")
